#!/bin/sh
# Stands before a program of the system: records the call and stops before it, and after its effect.
. "${0%/*}/../../lib/stub.sh"
name="${0##*/}"
record file "$name" "$@"
read -r kind < "$run/../lib/wrap/$name"
read -r watched < "$run/watched"
case "$kind $*" in
  lock* | *"$watched"*)
    next "$kind"
    point="$kind.$n"
    stop "$point"
    plan "$kind"
    [ "$plan" != refuse ] || printf '%s\n' "$*" >> "$run/refused"
    if [ "$plan" = fail ] || { [ -e "$run/refused" ] && grep -qxF -e "$*" "$run/refused"; }; then
      echo "$name: refused: $*" >&2
      exit 1
    fi
    "$name" "$@"
    status=$?
    stop "$point.done"
    exit "$status"
    ;;
esac
exec "$name" "$@"
