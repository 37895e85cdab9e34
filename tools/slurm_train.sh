#!/usr/bin/env sh
# Trains under Slurm: GPUS=16 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
# GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS are handed on to srun; MASTER_PORT is one of this script's own.
set -eu
usage="usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]"
case "${1:-}" in -h | --help) echo "$usage"; exit 0 ;; esac
[ $# -ge 3 ] || { echo "$usage" >&2; exit 2; }
partition=$1 job=$2 config=$3
shift 3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
# two jobs may share a machine
export MASTER_PORT="${MASTER_PORT:-$((20000 + $$ % 10000))}"
# shellcheck disable=SC2086  # SRUN_ARGS are several words
exec srun --partition "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
  --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
