#!/usr/bin/env bash
# Trains on a SLURM cluster, and goes on by itself after preemptions and time limits.
#
#   . .venv/bin/activate     # sbatch hands the environment on to the nodes
#   sbatch --nodes=4 scripts/launch/slurm.sh --config configs/edm2/imagenet512.py:xxl \
#     --workdir /shared/runs/xxl --config.mesh.fsdp=8
#
# All arguments are those of `jaxgen train`. The workdir and the data must be on a file system that
# all nodes share. DRY_RUN=1 bash scripts/launch/slurm.sh ... prints the commands and runs none.

#SBATCH --job-name=jaxgen
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1      # one process a node drives all of its GPUs
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32       # of which jaxgen decodes images
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append       # one log through all restarts
#SBATCH --output=%x-%j.log
#SBATCH --signal=TERM@300        # to the processes, 300 s before the time limit: save and stop

set -uo pipefail

# A run that fails again and again is not started again for ever.
max_restarts="${MAX_RESTARTS:-20}"

run() {
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

if [ "$#" -eq 0 ]; then
  echo "error: give the arguments of jaxgen train, such as --config FILE --workdir FOLDER" >&2
  exit 2
fi

# A preemption's SIGTERM goes to this shell, too; it has to live on to requeue the job.
trap : TERM

# Process numbers and the coordinator come from SLURM's variables: no --coordinator is needed.
run srun --kill-on-bad-exit=0 jaxgen train --no_progress --config.watchdog.exit=True "$@"
code=$?

# srun gives the highest exit code of the processes. 143: asked to stop, and saved. 75: the watchdog
# found no step finishing, or a process is gone. 134, 137: ended by the system. 2 is an error that
# would come again, in words in the log.
case "$code" in
  0) echo "finished" ;;
  75 | 134 | 137 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$max_restarts" ]; then
      echo "error: exit code $code, and no more than $max_restarts restarts (MAX_RESTARTS)" >&2
      exit "$code"
    fi
    echo "exit code $code: going on in a new turn"
    run scontrol requeue "${SLURM_JOB_ID:-JOB}"
    ;;
  *)
    echo "error: exit code $code; see the lines above" >&2
    exit "$code"
    ;;
esac
