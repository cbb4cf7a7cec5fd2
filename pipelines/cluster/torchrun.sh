#!/usr/bin/env bash
# Trains on all GPUs of one machine; or of several, where each runs the same command:
#
#   bash pipelines/cluster/torchrun.sh --in data/rows --out data/encoder
#   NODES=2 HEAD=10.0.0.1:29500 bash pipelines/cluster/torchrun.sh --in data/rows --out data/encoder
#
# NODES: how many machines. HEAD: address and free port of one of them. PROCESSES: for each machine; default: its GPUs.
# JOB: a name that all machines of a training share. What follows goes to `taming train`.
set -euo pipefail

exec torchrun --nnodes "${NODES:-1}" --nproc-per-node "${PROCESSES:-gpu}" \
  --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost:0}" --rdzv-id "${JOB:-taming}" \
  --shutdown-timeout 120 --no-python taming train "$@"
