#!/bin/sh
# Starts the gateway that is installed in .venv, in the background, and sends it a question.
# For a first look: docs/deployment.md has what a service is started by.
cd "$(dirname "$0")/.." || exit
tokenhub=.venv/bin/tokenhub
log=gateway.log
# An earlier gateway that still runs keeps the file it writes to.
[ ! -e "$log" ] || mv -f "$log" "$log.old"
: >"$log"
"$tokenhub" serve </dev/null >>"$log" 2>&1 &
pid=$!
echo "Starting the gateway; its log is $log."
until grep -q 'listening on' "$log"; do
  if ! kill -0 "$pid" 2>/dev/null; then
    echo "It did not start:" >&2
    tail -n 1 "$log" >&2
    if grep -q 'Address already in use' "$log"; then
      echo "A gateway that was started before has to be stopped first: pgrep -af 'tokenhub serve' names it." >&2
      echo "Another program keeps the port: choose one in [server] listen of routes.toml." >&2
    fi
    exit 1
  fi
  sleep 0.2
done
"$tokenhub" chat balanced "Why is the sky blue?" --wait 20
status=$?
echo "The gateway keeps running. To stop it: kill $pid"
exit "$status"
