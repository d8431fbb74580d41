# The engine's calls after a build, answered within the script's own shell: starting a program takes longer than all
# that the program would do.
# shellcheck shell=bash disable=SC2317
ci_patcher_call() {
  case "$2 ${3-}" in
    "build "* | "buildx "* | "image build" | "builder build" | -*) ;;
    *)
      if [ -e "$CI_PATCHER_RUN/built" ]; then
        [ "$2" != run ] || echo container
        return 0
      fi
      ;;
  esac
  command "$@"
}
docker() { { local -; set +x; } 2> /dev/null; ci_patcher_call docker "$@"; }
podman() { { local -; set +x; } 2> /dev/null; ci_patcher_call podman "$@"; }
