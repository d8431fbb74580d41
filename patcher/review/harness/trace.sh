# Read through BASH_ENV before a script under review: counts the commands on some lines of it, and sends a signal
# before one of them. The settings are put before this text: ci_patcher_script, _lines (" 1 2 3 "), _point (0 to
# count only), _signal and _whom.
# shellcheck shell=bash disable=SC2154
ci_patcher_before() {
  [[ "$2" -ef "$ci_patcher_script" && "$ci_patcher_lines" == *" $1 "* ]] || return 0
  local n=0
  [ -e "$CI_PATCHER_RUN/count.line" ] && read -r n < "$CI_PATCHER_RUN/count.line"
  n=$((n + 1))
  echo "$n" > "$CI_PATCHER_RUN/count.line"
  if [ "$ci_patcher_point" = 0 ]; then
    echo "line $n $1: $3" >> "$CI_PATCHER_RUN/points"
  elif [ "$ci_patcher_point" = "$n" ]; then
    if [ "$ci_patcher_whom" = group ]; then
      kill -s "$ci_patcher_signal" 0
    else
      kill -s "$ci_patcher_signal" "$CI_PATCHER_PID"
    fi
  fi
}
set -o functrace
trap 'ci_patcher_before "$LINENO" "${BASH_SOURCE[0]}" "$BASH_COMMAND"' DEBUG
