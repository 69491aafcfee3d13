#!/bin/sh
# A watcher in plain shell and curl: sets a signal, follows the stream, and goes on where it was when it is cut.
# usage: watch.sh URL [COUNT]     COORDINATOR_TOKEN, where the daemon asks for one. Prints each event's cursor and type.
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
  sleep 1 # cut off: go on after the last event
done
