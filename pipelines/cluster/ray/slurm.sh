#!/usr/bin/env bash
# sbatch pipelines/cluster/ray/slurm.sh detect --in data/raw --out data/objects.parquet
#
# What follows the file is a data stage and its options: detect, caption or materialize. The folder it is submitted from
# is on a disk that all machines share. Ray starts on every machine of the job and ends with it.
#SBATCH --job-name=taming-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue  # the same command goes on: finished shards are final
#SBATCH --open-mode=append
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:$((20000 + SLURM_JOB_ID % 20000))"  # a port of its own, for jobs that share a machine
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID" RAY_USAGE_STATS_ENABLED=0

srun --kill-on-bad-exit=1 ray symmetric-run --address "$address" --min-nodes "$SLURM_NNODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$SLURM_GPUS_ON_NODE" \
  -- taming "$@" --engine ray --ray-address "$address"
