# If DANGER_DOCKER_BUILD_CACHE_HOST_DIR is set, the image's layers are cached below it, per CONTAINER_NAME.
# It is the absolute path of a directory that must be created in advance, with room for two caches per task.
# Prefixed with DANGER, because files below it are removed. Base images are not cached. The docker engine
# must be able to export a cache of type=local: https://docs.docker.com/build/cache/backends/local/
docker_build_cached() (
  [ "${DANGER_DOCKER_BUILD_CACHE_HOST_DIR:-}" ] || { "$@"; exit; }
  [ -w "${DANGER_DOCKER_BUILD_CACHE_HOST_DIR}/." ] ||
    { echo "Error: DANGER_DOCKER_BUILD_CACHE_HOST_DIR must be a writable directory, created in advance." >&2; exit 1; }
  set +o errexit
  old_cache="${DANGER_DOCKER_BUILD_CACHE_HOST_DIR}/${CONTAINER_NAME:?}"
  # Shared for as long as this run may read the cache. Replacing the cache takes it exclusively.
  exec {cache_lock}>> "${old_cache}~lock" && flock --shared "$cache_lock" || exit
  # option: cache-to
  new_cache="$(mktemp --dry-run "${old_cache}~new.XXXXXXXXXX")" || exit
  # Remember a signal, so that the build ends before the cleanup. A closed pipe must not end it either.
  received=""
  trap 'received=HUP' HUP; trap 'received=INT' INT; trap 'received=TERM' TERM; trap '' PIPE
  "$@" --cache-from "type=local,src=${old_cache}" --cache-to "type=local,dest=${new_cache},mode=max,ignore-error=true"
  build_status=$?
  # While another run reads the cache it can't be replaced. That run will do so.
  if flock --exclusive --nonblock "$cache_lock"; then
    if [ "$build_status" = 0 ] && [ -e "${new_cache}/index.json" ]; then
      mv -T "$old_cache" "${new_cache}.old" 2> /dev/null
      mv -T "$new_cache" "$old_cache" || mv -T "${new_cache}.old" "$old_cache" 2> /dev/null
    fi
    rm -rf "${old_cache}~new."* # Also those of runs that were killed.
  fi
  # Once more if a signal ended the first.
  rm -rf "$new_cache" "${new_cache}.old" || rm -rf "$new_cache" "${new_cache}.old"
  trap - HUP INT TERM
  [ -z "$received" ] || kill -s "$received" "$BASHPID"
  exit "$build_status"
)
