#!/bin/sh
# Stands before a program of the system: records the call and stops before it, and after its effect.
. "${0%/*}/../../lib/stub.sh"
name="${0##*/}"
record file "$name" "$@"
read -r kind < "$run/../lib/wrap/$name"
read -r watched < "$run/watched"
# The system's program by its path, since what it starts in its turn (flock does) must find those of the run.
IFS=:
for folder in $PATH; do
  [ ! -x "$folder/$name" ] || break
done
unset IFS
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
    # shellcheck disable=SC2154
    PATH="$own"
    "$folder/$name" "$@"
    status=$?
    stop "$point.done"
    exit "$status"
    ;;
esac
PATH="$own"
exec "$folder/$name" "$@"
