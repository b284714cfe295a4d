#!/usr/bin/env bash
# Installs what the harness needs, from the package registries only, and builds the
# mock upstream and the load clients. A step that fails does not stop the others.
#
#   BENCH_ROOT   where binaries, venvs, npm packages and logs go
#                (default: benchmarks/.work)
#   BENCH_LOCK   held by each step, as by each measurement (default: bench.lock in $TMPDIR or /tmp)
#   ONLY         space-separated subset of: apt build tokenhub tools litellm
#                vllm-router sglang-router portkey. Default: apt build, which is all that
#                direct, nginx, haproxy and an installed tokenhub need; `all` is the whole list.
# Versions can be pinned: LITELLM_SPEC, VLLM_ROUTER_SPEC, SGLANG_ROUTER_SPEC, PORTKEY_SPEC.
#
#   benchmarks/comparison/setup.sh
#   ONLY=build benchmarks/comparison/setup.sh        # without root; gcc, nginx and wrk are there
#   ONLY="litellm portkey" benchmarks/comparison/setup.sh
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BENCHMARKS=$(dirname "$HERE")
BENCH_ROOT=${BENCH_ROOT:-$BENCHMARKS/.work}
BENCH_LOCK=${BENCH_LOCK:-${TMPDIR:-/tmp}/bench.lock}
PYTHON=${PYTHON:-python3}
ONLY=${ONLY:-apt build}
[ "$ONLY" = all ] && ONLY="apt build tokenhub tools litellm vllm-router sglang-router portkey"
mkdir -p "$BENCH_ROOT"/{venvs,npm,bin,run,logs}
rc=0

apt_packages() {  # only what is missing: without root all may be there, or come from elsewhere
  local need missing=()
  for need in nginx:nginx-light haproxy:haproxy wrk:wrk gcc:gcc openssl:openssl taskset:util-linux npm:npm; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
  done
  echo '#include <sys/epoll.h>' | gcc -E - >/dev/null 2>&1 || missing+=(libc6-dev)
  "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  [ "${#missing[@]}" -eq 0 ] && return
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

build() {
  local name
  for name in mock sseload openload spin; do
    gcc -O2 -Wall -o "$BENCH_ROOT/bin/$name" "$BENCHMARKS/native/$name.c" || return 1
  done
}

venv() {  # venv NAME PIP_ARGUMENT...
  local dir="$BENCH_ROOT/venvs/$1"; shift
  [ -x "$dir/bin/pip" ] || "$PYTHON" -m venv "$dir" || return 1
  "$dir/bin/pip" install -q "$@"
}

npm_into() {  # npm_into NAME NPM_ARGUMENT...
  local dir="$BENCH_ROOT/npm/$1"; shift
  mkdir -p "$dir" && cd "$dir" && { [ -f package.json ] || npm init -y >/dev/null; } \
    && npm install --no-audit --no-fund "$@"
}

step() {  # step NAME COMMAND...; what failed is left as NAME.failed for the report
  local name=$1 log="$BENCH_ROOT/logs/$1.log" failed="$BENCH_ROOT/logs/$1.failed"; shift
  [[ " $ONLY " == *" $name "* ]] || return 0
  rm -f "$failed"
  if ( flock 9; "$@" ) 9>>"$BENCH_LOCK" >"$log" 2>&1; then
    echo "ok    $name"
  else
    echo "FAIL  $name (see $log)"; : >"$failed"; rc=1
  fi
}

step apt           apt_packages
step build         build
step tokenhub      venv tokenhub "$BENCHMARKS/..[bench]"  # not -e: what is measured is compiled
step tools         venv tools 'openai>=1.50'
step litellm       venv litellm "${LITELLM_SPEC:-litellm[proxy]}"
step vllm-router   venv vllm-router "${VLLM_ROUTER_SPEC:-vllm-router}"
step sglang-router venv sglang-router "${SGLANG_ROUTER_SPEC:-sglang-router}"
step portkey       npm_into portkey --legacy-peer-deps "${PORTKEY_SPEC:-@portkey-ai/gateway}" "@hono/node-server@${PORTKEY_HONO:-1.13.7}"
exit $rc
