#!/usr/bin/env bash
# Readers that CI has not: Go, Java, PHP, nlohmann/json, and the gateways LiteLLM (750 MB) and Portkey. What is missing
# is skipped with a word. Words are passed on: tests/readers/more.sh -k go
#
#   apt-get install golang-go php-cli g++ nlohmann-json3-dev default-jdk-headless libjackson2-databind-java libgoogle-gson-java
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export TOKENHUB_READERS=${TOKENHUB_READERS:-more}
exec "${PYTHON:-python}" -m pytest -n 0 -rs -m readers tests/readers "$@"
