#!/usr/bin/env bash
# Trains on a slice of Cloud TPU VMs, and makes the slice again when it was preempted.
#
#   TPU=my-slice ZONE=us-east5-a TYPE=v5p-128 SPOT=1 scripts/launch/tpu_vm.sh \
#     --config configs/edm2/imagenet512.py:xxl --workdir /mnt/shared/runs/xxl --config.mesh.fsdp=64
#
# All arguments are those of `jaxgen train`. Variables:
#   TPU, ZONE, TYPE   name, zone and accelerator type of the slice
#   VERSION           its image (v2-alpha-tpuv5; v2-alpha-tpuv5-lite and v2-alpha-tpuv6e for others)
#   SPOT=1            preemptible capacity
#   SETUP             a command for every host, such as the mount of a shared folder
#   MAX_RESTARTS      turns after the first, at most (20)
#   DRY_RUN=1         prints the commands and runs none
# The hosts get the committed files of this repository. The workdir must be on a file system that
# all of them mount (Filestore, say): checkpoints need a rename of folders that is atomic. The data
# may be on each host, under the same path.

set -uo pipefail

: "${TPU:?the name of the slice}" "${ZONE:?its zone}" "${TYPE:?its accelerator type, as v5p-128}"
version="${VERSION:-v2-alpha-tpuv5}"
setup="${SETUP:-true}"
max_restarts="${MAX_RESTARTS:-20}"
where=(--zone="$ZONE")
root="$(cd "$(dirname "$0")/../.." && pwd)"
python="sudo apt-get -qq update && sudo apt-get -qq install -y python3.11-venv"
files="${TMPDIR:-/tmp}/jaxgen-$TPU.tar.gz"

run() {
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

# On all hosts at once: every process has to be there before the first can begin.
everywhere() {
  run gcloud compute tpus tpu-vm ssh "$TPU" "${where[@]}" --worker=all --command="$1"
}

state() {
  if [ -n "${DRY_RUN:-}" ]; then
    echo MISSING
  else
    gcloud compute tpus tpu-vm describe "$TPU" "${where[@]}" --format="value(state)" 2>/dev/null ||
      echo MISSING
  fi
}

make_slice() {
  if [ "$1" != MISSING ]; then # a preempted slice keeps its name until it is deleted
    run gcloud compute tpus tpu-vm delete "$TPU" "${where[@]}" --quiet || return 1
  fi
  run gcloud compute tpus tpu-vm create "$TPU" "${where[@]}" \
    --accelerator-type="$TYPE" --version="$version" ${SPOT:+--spot} &&
    run git -C "$root" archive --prefix=jaxgen/ --output="$files" HEAD &&
    run gcloud compute tpus tpu-vm scp "$files" "$TPU:jaxgen.tar.gz" "${where[@]}" --worker=all &&
    everywhere "$setup && $python && tar -xzf jaxgen.tar.gz && python3.11 -m venv venv && \
venv/bin/pip install --quiet './jaxgen[tpu]'"
}

if [ "$#" -eq 0 ]; then
  echo "error: give the arguments of jaxgen train, such as --config FILE --workdir FOLDER" >&2
  exit 2
fi

# In the repository's folder, where configs/ is. The hosts find each other by the TPU's metadata: no
# --coordinator is needed.
train="cd jaxgen && exec ../venv/bin/jaxgen train --no_progress --config.watchdog.exit=True"
train+="$(printf ' %q' "$@")"

for ((turn = 0; turn <= max_restarts; turn++)); do
  now="$(state)"
  if [ "$now" != READY ] && ! make_slice "$now"; then
    echo "turn $turn of $max_restarts: no slice; trying again in 60 s" >&2
    sleep 60
    continue
  fi
  SECONDS=0
  everywhere "$train" && exit 0
  # gcloud does not hand on the hosts' exit codes. An error of jaxgen's comes soon, on a sound
  # slice, and would come again; what comes later is a preemption, a lost host, or the watchdog.
  if [ "$SECONDS" -lt 600 ] && [ "$(state)" = READY ]; then
    echo "error: training has ended within $SECONDS s on a sound slice; see the lines above" >&2
    exit 2
  fi
  echo "turn $turn of $max_restarts has ended early: going on" >&2
done
exit 1
