# If DANGER_DOCKER_BUILD_CACHE_HOST_DIR is set, image layers are cached in it, but no base images. It must
# be the absolute path of a directory, created in advance, with room for two caches per CONTAINER_NAME.
# Files in it are removed, hence DANGER. The docker engine must be able to export a cache of type=local.
docker_build_cached() (
  [ "${DANGER_DOCKER_BUILD_CACHE_HOST_DIR:-}" ] || { "$@"; exit; }
  set +o errexit
  cache="${DANGER_DOCKER_BUILD_CACHE_HOST_DIR}/${CONTAINER_NAME:?}"
  # While this run or its build holds the lock, no other run replaces the cache.
  { [ -w "$DANGER_DOCKER_BUILD_CACHE_HOST_DIR" ] && exec {fd}>>"${cache}~lock" && flock --shared "$fd"; } ||
    { echo "Error: No write access or no flock in DANGER_DOCKER_BUILD_CACHE_HOST_DIR." >&2; exit 1; }
  new_cache="$(mktemp --dry-run "${cache}~new.XXXXXXXXXX")" || exit
  cache_arg=(--cache-to "type=local,dest=${new_cache},mode=max,ignore-error=true")
  # option: cache-to
  grep -qs 'ref.name": *"latest"' "${cache}/index.json"
  [ $? = 1 ] || cache_arg+=(--cache-from "type=local,src=${cache}") # An untagged index fails the build.
  # Remember a signal, so that the build ends before the cleanup. A closed pipe must not end it either.
  received="" handled=none build_status=0
  trap 'received=HUP' HUP; trap 'received=INT' INT; trap 'received=TERM' TERM; trap '' PIPE
  "$@" "${cache_arg[@]}" || build_status=$?
  while [ "$handled" != "$received" ] && handled="$received"; do # Once more if a signal came meanwhile.
    [ "$build_status" = 0 ] || rm -rf "${new_cache}/index.json" "$new_cache"
    # The last of several runs replaces the cache by the newest export, whichever run made it.
    flock --exclusive --nonblock "$fd" || continue
    for dir in "${cache}~new."*; do
      [ "${dir}/index.json" -nt "${cache}/index.json" ] || continue
      mv -T "$cache" "${dir}.old" 2> /dev/null
      mv -T "$dir" "$cache" || mv -T "${dir}.old" "$cache" 2> /dev/null || [ -e "$cache" ] || continue 2
    done
    rm -rf "${cache}~new."* 2> /dev/null # Not reached if it has the only copy.
  done
  trap - HUP INT TERM
  [ -z "$received" ] || kill -s "$received" "$BASHPID"
  exit "$build_status"
)
