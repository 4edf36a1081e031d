#!/usr/bin/env bash
# Train on all GPUs of this machine, or on its processors: training/launch/torchrun.sh CONFIG [--set KEY=VALUE ...]
# It runs training/train_lad.py, or another script:
#   SCRIPT=training/train_adapters.py training/launch/torchrun.sh CONFIG
#
# On several machines run it on each of them, with the same values:
#   NODES=2 ADDRESS=first-machine:29500 training/launch/torchrun.sh CONFIG
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=.venv/bin
gpus=$("$bin/python" -c 'import torch; print(torch.cuda.device_count())')
processes=${PROCESSES:-$([ "$gpus" -gt 0 ] && echo "$gpus" || nproc)}
script=${SCRIPT:-training/train_lad.py}
# Processes that share a machine's processors take one each; more threads would wait for each other.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [ "${NODES:-1}" -gt 1 ]; then
  exec "$bin/torchrun" --nnodes "$NODES" --nproc-per-node "$processes" \
    --rdzv-backend c10d --rdzv-endpoint "$ADDRESS" "$script" "$@"
fi
exec "$bin/torchrun" --standalone --nproc-per-node "$processes" "$script" "$@"
