#!/usr/bin/env bash
# Installs everything the harness needs, from the package registries only, and
# builds the mock upstream and the streaming load client.
#
#   BENCH_ROOT   where binaries, venvs, npm packages and logs go
#                (default: .work beside this script)
#   ONLY         space-separated subset of: apt build tools litellm vllm-router
#                sglang-router portkey. Default: apt build, which is all that
#                direct, nginx, haproxy and tokenhub need; `all` is the whole list.
# Versions can be pinned: LITELLM_SPEC, VLLM_ROUTER_SPEC, SGLANG_ROUTER_SPEC, PORTKEY_SPEC.
#
#   benchmarks/setup.sh
#   ONLY=build benchmarks/setup.sh                 # without root; gcc, nginx and wrk are there
#   ONLY="litellm portkey" benchmarks/setup.sh
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BENCH_ROOT=${BENCH_ROOT:-$HERE/.work}
PYTHON=${PYTHON:-python3}
ONLY=${ONLY:-apt build}
[ "$ONLY" = all ] && ONLY="apt build tools litellm vllm-router sglang-router portkey"
mkdir -p "$BENCH_ROOT"/{venvs,npm,bin,run,logs}
rc=0

want() { [[ " $ONLY " == *" $1 "* ]]; }

venv() {  # venv NAME PKG...
  local name=$1; shift
  local dir="$BENCH_ROOT/venvs/$name"
  [ -x "$dir/bin/python" ] || "$PYTHON" -m venv "$dir" || return 1
  "$dir/bin/pip" install -q "$@" >"$BENCH_ROOT/logs/pip-$name.log" 2>&1
}

npm_into() {  # npm_into NAME PKG...
  local name=$1; shift
  mkdir -p "$BENCH_ROOT/npm/$name"
  ( cd "$BENCH_ROOT/npm/$name" && { [ -f package.json ] || npm init -y >/dev/null 2>&1; } \
    && npm install --no-audit --no-fund "$@" ) >"$BENCH_ROOT/logs/npm-$name.log" 2>&1
}

step() {  # step NAME CMD...
  local name=$1; shift
  if "$@"; then echo "ok    $name"; else echo "FAIL  $name (see $BENCH_ROOT/logs)"; rc=1; fi
}

if want apt; then
  apt_step() { apt-get update -qq >"$BENCH_ROOT/logs/apt.log" 2>&1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      nginx-light haproxy wrk gcc libc6-dev util-linux >>"$BENCH_ROOT/logs/apt.log" 2>&1; }
  step apt apt_step
fi
if want build; then
  step build:mock   gcc -O2 -Wall -o "$BENCH_ROOT/bin/mock"   "$HERE/mock.c"
  step build:sseload gcc -O2 -Wall -o "$BENCH_ROOT/bin/sseload" "$HERE/sseload.c"
  step build:spin   gcc -O2 -Wall -o "$BENCH_ROOT/bin/spin"   "$HERE/spin.c"
fi
want tools         && step tools         venv tools 'openai>=1.50'
want litellm       && step litellm       venv litellm "${LITELLM_SPEC:-litellm[proxy]}"
want vllm-router   && step vllm-router   venv vllm-router "${VLLM_ROUTER_SPEC:-vllm-router}"
want sglang-router && step sglang-router venv sglang-router "${SGLANG_ROUTER_SPEC:-sglang-router}"
want portkey       && step portkey       npm_into portkey --legacy-peer-deps "${PORTKEY_SPEC:-@portkey-ai/gateway}" "@hono/node-server@${PORTKEY_HONO:-1.13.7}"
exit $rc
