#!/usr/bin/env sh
# Trains on several GPUs: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: on each, NNODES=2 NODE_RANK=0 MASTER_ADDR=first-machine MASTER_PORT=29500 tools/dist_train.sh ...
set -eu
usage="usage: $0 CONFIG GPUS [arguments of tools/train.py]"
case "${1:-}" in -h | --help) echo "$usage"; exit 0 ;; esac
[ $# -ge 2 ] || { echo "$usage" >&2; exit 2; }
config=$1 gpus=$2
shift 2
exec python -m mmseg_volo.launch "$gpus" train "$config" "$@"
