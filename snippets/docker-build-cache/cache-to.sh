if [ "${VARIABLE:-}" != "VALUE" ]; then
  cache_arg=()
fi
