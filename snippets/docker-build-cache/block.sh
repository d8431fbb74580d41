# If DANGER_DOCKER_BUILD_CACHE_HOST_DIR is set, the image's layers are cached below it, per CONTAINER_NAME.
# It is the absolute path of a directory that must be created in advance, with room for two caches per task.
# Prefixed with DANGER, because files below it are removed. Base images are not cached. The docker engine
# must be able to export a cache of type=local: https://docs.docker.com/build/cache/backends/local/
docker_build_cached() (
  [ "${DANGER_DOCKER_BUILD_CACHE_HOST_DIR:-}" ] || { "$@"; exit; }
  [ -w "${DANGER_DOCKER_BUILD_CACHE_HOST_DIR}/." ] ||
    { echo "Error: DANGER_DOCKER_BUILD_CACHE_HOST_DIR must be a writable directory, created in advance." >&2; exit 1; }
  set +o errexit
  cache="${DANGER_DOCKER_BUILD_CACHE_HOST_DIR}/${CONTAINER_NAME:?}"
  # Shared for as long as this run may read the cache. Replacing the cache takes it exclusively.
  exec 9>> "${cache}~lock" && flock --shared 9 || exit
  # option: cache-to
  new="$(mktemp --dry-run "${cache}~new.XXXXXXXXXX")" || exit
  # Remember a signal, so that the build ends before the cleanup. A closed pipe must not end it either.
  signal=""
  trap 'signal=HUP' HUP; trap 'signal=INT' INT; trap 'signal=TERM' TERM; trap '' PIPE
  "$@" --cache-from "type=local,src=${cache}" --cache-to "type=local,dest=${new},mode=max,ignore-error=true"
  status=$?
  # While another run reads the cache it can't be replaced. That run will do so.
  if flock --exclusive --nonblock 9; then
    if [ "$status" = 0 ] && [ -e "${new}/index.json" ]; then
      mv -T "$cache" "${new}.old" 2> /dev/null
      mv -T "$new" "$cache" || mv -T "${new}.old" "$cache" 2> /dev/null
    fi
    rm -rf "${cache}~new."* # Also those of runs that were killed.
  fi
  # Once more if a signal ended the first.
  rm -rf "$new" "${new}.old" || rm -rf "$new" "${new}.old"
  trap - HUP INT TERM
  [ -z "$signal" ] || kill -s "$signal" "$BASHPID"
  exit "$status"
)
