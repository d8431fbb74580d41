#!/bin/sh
# Stands in for sudo and doas, which are not in the sandbox: runs the command as who it is.
while [ $# != 0 ]; do
  case "$1" in
    --) shift; break ;;
    -u | -g | -h | -p | -C | -D | -R | -T | -U | -r | -t | --user | --group | --host | --prompt | --chdir | --chroot)
      shift 2 || exit 1 ;;
    -v | -K | --validate) exit 0 ;;
    -*) shift ;;
    *) break ;;
  esac
done
[ $# != 0 ] || exit 0
exec env "$@"
