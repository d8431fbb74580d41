if [ "${VARIABLE:-}" != "VALUE" ]; then
  "$@" --cache-from "type=local,src=${old_cache}"
  exit
fi
