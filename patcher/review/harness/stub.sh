# Sourced by the programs that stand first in PATH of a run: what they report to the driver.
# shellcheck shell=sh
# A program is <run>/bin/<name>. <run> holds the log, the plan and two pipes to the driver.
run="${0%/*/*}"
# shellcheck disable=SC2034 # for whoever starts a program that is to find the run's own ones
own="$PATH"
PATH=/usr/local/bin:/usr/bin:/bin

# record WORD...: one call, as its number of words and the words, each ended by a NUL.
record() {
  printf '%s\0' "$#" "$@" >> "$run/log"
}

# say LINE: a line on standard error.
say() {
  echo "$1" >&2
}

# next KEY: counts in $n how often KEY came up.
next() {
  n=0
  [ -e "$run/count.$1" ] && read -r n < "$run/count.$1"
  n=$((n + 1))
  echo "$n" > "$run/count.$1"
}

# stop POINT: waits for the driver where a step of the scenario waits for this point.
stop() {
  echo "$1" >> "$run/points"
  [ -e "$run/arm/$1" ] || return 0
  echo "$1" > "$run/at"
  read -r _ < "$run/go"
}

# plan KEY: puts into $plan what the scenario says about the next call of this kind; the last word stays.
plan() {
  plan=ok
  [ -e "$run/plan/$1" ] || return 0
  next "plan.$1"
  if [ -e "$run/plan/$1.$n" ]; then
    read -r plan < "$run/plan/$1.$n"
  else
    read -r plan < "$run/plan/$1"
  fi
}
