#!/bin/sh
# Stands before a program of the system: records the call and stops before it, and after its effect.
. /ci-patcher/lib/stub.sh
name="${0##*/}"
record file "$name" "$@"
read -r kind < "/ci-patcher/lib/kinds/$name"
read -r watched < "$run/watched"
# The system's program by its path, since what it starts in its turn (flock does) must find those of the run.
for folder in /usr/local/bin /usr/bin /bin; do
  [ ! -x "$folder/$name" ] || break
done
PATH="$own"
case "$kind $*" in
  lock* | *"$watched"*) ;;
  *) exec "$folder/$name" "$@" ;;
esac
next "$kind"
point="$kind.$n"
stop "$point"
plan "$kind"
[ "$plan" != refuse ] || printf '%s\n' "$*" >> "$run/refused"
if [ "$plan" = fail ] || { [ -e "$run/refused" ] && /usr/bin/grep -qxF -e "$*" "$run/refused"; }; then
  echo "$name: refused: $*" >&2
  exit 1
fi
"$folder/$name" "$@"
status=$?
stop "$point.done"
exit "$status"
