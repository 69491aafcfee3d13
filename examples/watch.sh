#!/bin/sh
# A watcher in plain shell and curl: sets a signal, follows the stream, and resumes after a lost connection.
# usage: watch.sh URL [COUNT]     Prints the cursor and type of each event. Set COORDINATOR_TOKEN if the daemon requires a token.
set -eu
url=$1 count=${2:-0} last='' seen=0
call() { curl -sS ${COORDINATOR_TOKEN:+-H "Authorization: Bearer $COORDINATOR_TOKEN"} "$@"; }

json='Content-Type: application/json'
call --fail-with-body -H "$json" -d '{"key": "watch/began", "value": true}' "$url/v1/signals/set" >&2
stream="$url/v1/events/stream?topic=signal.*&after=start"
events=$(mktemp -u) && mkfifo "$events" && trap 'rm -f "$events"; kill "${curl:-0}" 2>/dev/null || true' EXIT
while :; do
  call -N ${last:+-H "Last-Event-ID: $last"} "$stream" >"$events" 2>/dev/null & curl=$!
  while IFS= read -r line; do
    case $line in
      'id: '*) id=${line#id: } ;;
      'event: '*) type=${line#event: } ;;
      'data: '*)
        case $type in ready | bye) continue ;; esac
        last=$id seen=$((seen + 1))
        echo "$last $type"
        [ "$seen" -ne "$count" ] || exit 0 ;;
    esac
  done <"$events"
  sleep 1 # connection lost: resume after the last event
done
