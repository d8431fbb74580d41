#!/bin/sh
# Stands in for docker and podman: records its words. A build ends as the scenario says.
. "${0%/*}/../../lib/stub.sh"

case "$1 $2" in
  "build "* | "buildx build" | "image build" | "builder build")
    record build "${0##*/}" "$@"
    plan build
    [ "$plan" = ok ] || exit 1
    ;;
  *)
    record other "${0##*/}" "$@"
    [ "$1" != run ] || echo "container"
    ;;
esac
