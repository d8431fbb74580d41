#!/bin/sh
# Lies over a program of the machine that nothing in the sandbox may reach, by whatever path: becomes the run's own.
exec "${CI_PATCHER_RUN:?}/bin/${0##*/}" "$@"
