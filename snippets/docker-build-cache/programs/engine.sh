#!/bin/sh
# Stands in for docker and podman: records its words, and builds as the scenario says. What it reads from
# `--cache-from` and writes to `--cache-to` is what BuildKit's type=local does, with one layer per run.
. "${0%/*}/../../lib/stub.sh"

# The options before the command, which may stand before that of the plugin as well, are no part of its name.
kind=other command="" value=""
for word in "$@"; do
  case "${value:+value}$word" in
    value*) value="" ;;
    -c | -H | -l | --builder | --config | --connection | --context | --host | --log-level | --tlscacert | --tlscert | \
      --tlskey | --url) value=1 ;;
    -*) ;;
    *)
      command="$command $word"
      case "$command" in
        " buildx" | " builder" | " image" | " manifest") ;;
        *) break ;;
      esac
      ;;
  esac
done
case "$command" in
  " build" | " buildx build" | " buildx b" | " image build" | " builder build") kind=build ;;
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
  [ "$command" != " run" ] || echo "container"
  exit 0
fi

record build "${0##*/}" "$@"
# Which signals the build starts with blocked: none, as in the unpatched script.
plan signals
if [ "$plan" = shown ]; then
  while read -r name value; do
    [ "$name" != SigBlk: ] || record "after $value 0" "${0##*/}" blocked
  done < /proc/self/status
fi
from="" dest="" operands=""
for word in "$@"; do
  operands="${operands:+${operands}x}"
  case "$word" in
    --) operands="${operands:-0}" ;;
    - | --file=- | -f-) cat > /dev/null ;; # the image's file or its context, from whoever writes it
    *type=local,src=*) from="${word#*src=}" from="${from%%,*}" ;;
    *type=local,dest=*) dest="${word#*dest=}" dest="${dest%%,*}" ;;
  esac
done

# Behind `--` nothing is an option, so the context stands there alone.
if [ "$operands" ] && [ "$operands" != 0x ]; then
  say "ERROR: docker buildx build requires 1 argument"
  exit 1
fi

# What buildx makes of the index before anything is built. The layer that it names must stay as long as it is read.
index="" layer=""
if [ "$from" ]; then
  # There is no newline at its end.
  [ ! -f "$from/index.json" ] || read -r index < "$from/index.json" || :
  case "$index" in
    \{*'"org.opencontainers.image.ref.name":"latest"'*\}) layer="${index##*\"digest\":\"}" layer="${layer%%\"*}" ;;
    \{*\} | null)
      say 'ERROR: local cache importer requires either explicit digest, "latest" tag or custom tag on index.json'
      exit 1
      ;;
    # On standard output, so that `quiet` tells what the block itself says.
    *) echo "WARNING: local cache import at $from not found" ;;
  esac
fi
if [ "$layer" ] && [ ! -e "$from/blobs/$layer" ]; then
  echo "ERROR: failed to configure local cache importer: content $layer: not found" >&2
  layer=""
fi
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
if [ "$layer" ] && ! [ -e "$from/blobs/$layer" ]; then
  say "ERROR: $from/blobs/$layer: content not found"
  exit 1
fi
if [ "$dest" ] && { [ "$plan" = ok ] || [ "$plan" = late ]; }; then
  # Whoever takes the directory of a live build away is found out by an entry that no scenario knows.
  [ -d "$dest" ] || : > "${dest%/*}/lost"
  printf '{"schemaVersion":2,"manifests":[{"digest":"%s","annotations":{"org.opencontainers.image.ref.name":"latest"}}]}' \
    "${run##*/}" > "$dest/index.json" || exit 1
fi
if [ "$plan" = late ]; then
  say "ERROR: failed to load"
  exit 1
fi
: > "$run/built"
stop "build.$n.done"
exit 0
