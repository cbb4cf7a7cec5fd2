#!/usr/bin/env bash
# sbatch pipelines/cluster/slurm.sh --in data/rows --out data/encoder
#
# What follows the file goes to `taming train`. The folder it is submitted from is on a disk that all machines share.
#SBATCH --job-name=taming
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1  # a torchrun, which starts a process for each GPU
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue  # after preemption, or when a machine fails
#SBATCH --open-mode=append  # one log for all parts of the job
#SBATCH --signal=B:USR1@300  # to this script, five minutes before the time limit
set -euo pipefail

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000))  # of its own, for jobs that share a machine

srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-gpu}" \
  --rdzv-backend c10d --rdzv-endpoint "$head:$port" --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
  --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout 240 \
  --no-python taming train "$@" &
step=$!

stopping=
stop() {  # the time is nearly up: srun passes the signal on, and every process saves its state and ends
  stopping=yes
  kill -USR1 "$step"
}
trap stop USR1

status=0
wait "$step" || status=$?  # also returns at the signal
if [[ $stopping ]]; then
  status=0
  wait "$step" || status=$?
fi
if [[ $stopping && $status -ne 0 ]]; then
  scontrol requeue "$SLURM_JOB_ID"  # the same job goes on; Slurm itself requeues what it preempts (SIGTERM)
fi
exit "$status"
