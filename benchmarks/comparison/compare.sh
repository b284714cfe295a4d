#!/usr/bin/env bash
# Installs the gateways of targets.toml from the package registries, each into an environment
# of its own below .work ($BENCH_ROOT), and compares all of them: .work/results.md and .work/plots.
# Root is needed for apt only: without it, nginx, haproxy, wrk, gcc, openssl and npm have to be there.
# What can't be installed or doesn't start is named in the result, and stops nothing.
#
#   benchmarks/comparison/compare.sh                    # about an hour and a half
#   benchmarks/comparison/compare.sh --runs 1 --scenario a,f  # any options of the comparison
#   SETUP=no benchmarks/comparison/compare.sh --skip litellm  # all is installed
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export BENCH_ROOT=${BENCH_ROOT:-$(dirname "$HERE")/.work}
[ "${SETUP:-yes}" = no ] || ONLY=${ONLY:-all} "$HERE/setup.sh"
exec "$BENCH_ROOT/venvs/tokenhub/bin/python" "$HERE" --everything "$@"
