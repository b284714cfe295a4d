#!/bin/sh
# Starts the gateway that is installed in .venv, in the background, and sends it a question.
# For a first look: docs/deployment.md has what a service is started by.
cd "$(dirname "$0")/.." || exit
tokenhub=.venv/bin/tokenhub
# An earlier gateway may still run and write to gateway.log, which is replaced once this one has the port.
log=$(mktemp gateway.log.XXXXXX) || exit
"$tokenhub" serve </dev/null >"$log" 2>&1 &
pid=$!
echo "Starting the gateway; its log is gateway.log."
until grep -q 'listening on' "$log"; do
  if ! kill -0 "$pid" 2>/dev/null; then
    echo "It did not start:" >&2
    tail -n 1 "$log" >&2
    if grep -q 'Address already in use' "$log"; then
      echo "If an earlier gateway has the port, stop it first: pgrep -af 'tokenhub serve' names it." >&2
      echo "If another program has it, choose a free one in [server] listen of routes.toml." >&2
    fi
    rm -f "$log"
    exit 1
  fi
  sleep 0.2
done
[ ! -e gateway.log ] || mv -f gateway.log gateway.log.old
mv -f "$log" gateway.log
"$tokenhub" chat balanced "Why is the sky blue?" --wait 20
status=$?
[ "$status" = 0 ] || echo "The gateway runs, but it did not serve this request: the line above says why." >&2
echo "The gateway keeps running. To stop it: kill $pid"
exit "$status"
