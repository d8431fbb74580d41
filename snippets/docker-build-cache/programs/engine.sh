#!/bin/sh
# Stands in for docker and podman: records its words, and builds as the scenario says. What it reads from
# `--cache-from` and writes to `--cache-to` is what BuildKit's type=local does, with one layer per run.
. "${0%/*}/../../lib/stub.sh"

kind=other
case "$1 $2" in
  "build "* | "buildx build" | "buildx b" | "image build" | "builder build") kind=build ;;
esac

if [ "$kind" = other ]; then
  # The dispositions of the caller's signals, for comparison where a scenario wants them: it takes a while.
  signals=""
  plan signals
  if [ -e "$run/built" ] && [ "$plan" = shown ]; then
    while read -r name value; do
      case "$name" in SigIgn: | SigCgt:) signals="$signals $value" ;; esac
    done < "/proc/$PPID/status"
  fi
  record "after$signals" "${0##*/}" "$@"
  if [ -e "$run/built" ]; then
    stop later
    plan later
    [ "$plan" = ok ] || exit 1
  fi
  [ "$1" != run ] || echo "container"
  exit 0
fi

record build "${0##*/}" "$@"
from="" dest=""
for word in "$@"; do
  case "$word" in
    *type=local,src=*) from="${word#*src=}" from="${from%%,*}" ;;
    *type=local,dest=*) dest="${word#*dest=}" dest="${dest%%,*}" ;;
  esac
done

# The layer that the cache named when the build began must be there for as long as the build reads it.
layer=""
[ ! -e "$from/index.json" ] || read -r layer < "$from/index.json"
plan build
if [ "$dest" ] && [ "$plan" != none ] && [ "$plan" != fail ]; then
  mkdir -p "$dest/blobs" || exit 1
  echo "${run##*/}" > "$dest/blobs/${run##*/}"
fi
next build
stop "build.$n"
if [ "$plan" = fail ] || [ "$plan" = broken ]; then
  say "ERROR: failed to solve"
  exit 1
fi
if [ "$layer" ] && [ "$layer" != "garbage" ] && ! [ -e "$from/blobs/$layer" ]; then
  say "ERROR: $from/blobs/$layer: content not found"
  exit 1
fi
[ "$layer" ] || [ -z "$from" ] || echo "WARNING: local cache import at $from not found" >&2
if [ "$dest" ] && [ "$plan" = ok ]; then
  echo "${run##*/}" > "$dest/index.json" || exit 1
fi
: > "$run/built"
stop "build.$n.done"
exit 0
