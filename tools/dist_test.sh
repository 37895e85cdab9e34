#!/usr/bin/env sh
# Tests on several GPUs: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Several machines: as in dist_train.sh
set -eu
usage="usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]"
case "${1:-}" in -h | --help) echo "$usage"; exit 0 ;; esac
[ $# -ge 3 ] || { echo "$usage" >&2; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
exec python -m mmseg_volo.launch "$gpus" test "$config" "$checkpoint" "$@"
