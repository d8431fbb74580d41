if [ "${VARIABLE:-}" != "VALUE" ]; then
  "$@" --cache-from "type=local,src=${cache}"
  exit
fi
