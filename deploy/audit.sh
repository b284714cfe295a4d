#!/usr/bin/env bash
# Names known vulnerabilities: of the versions that the image has, and of what is installed for a Python, which needs
# pip-audit (the test extra has it).
#
#   deploy/audit.sh .venv/bin/python [options of pip-audit]
#
# Exits with 1 where there is one, or where it can't be told for any other reason than that the service is away: that is
# said in a line, and is no failure, as a build must not hang on somebody else's server.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -gt 0 ] || { echo "usage: deploy/audit.sh PYTHON [options of pip-audit]" >&2; exit 2; }
python=$1
shift
said=$(mktemp)
trap 'rm -f "$said"' EXIT
failed=0

# audit WHAT, options...: pip-audit exits with 1 for all that it has to say. A table of what it found is on standard
# output; where there is none, something went wrong.
audit() {
  local what=$1 found
  shift
  if found=$("$python" -m pip_audit --vulnerability-service osv --progress-spinner off --skip-editable "$@" 2>"$said"); then
    echo "audit of $what: no known vulnerability"
  elif [ -n "$found" ]; then
    printf 'audit of %s:\n%s\n' "$what" "$found"
    failed=1
  elif grep -Eq '^(requests\.exceptions\.|pip_audit\._service\.interface\.|ERROR:pip_audit\._cli:Could not connect)' "$said"; then
    echo "audit of $what: not done, as the service that knows vulnerabilities can't be reached"
  else
    echo "audit of $what: it failed" >&2
    cat "$said" >&2
    failed=1
  fi
}

audit "the image" --requirement deploy/docker/runtime.txt --no-deps --disable-pip "$@"
audit "the environment" --path "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$@"
exit "$failed"
