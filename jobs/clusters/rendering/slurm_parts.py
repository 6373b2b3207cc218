"""The lines of bash around a run under Slurm: signals passed on, a Ray started, queued again."""

from __future__ import annotations

WATCHING = """\
# Before the time is up Slurm sends SIGTERM: units in flight are finished, the job is queued again.
# 'scancel --batch --signal=TERM JOB' does the same; 'scancel JOB' ends it for good.
task=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
asked=0
driver=
ask() {
  asked=1
  # SIGUSR1 may come twice: Slurm sends SIGTERM to everybody when it ends a job
  if [ -n "$driver" ]; then kill -USR1 "$driver" 2>/dev/null; fi
}
trap ask TERM
"""
"""Before the run."""

ENDING = """\
driver=$!
if [ "$asked" = 1 ]; then ask; fi
wait "$driver"
code=$?
# a signal ends 'wait', but not what it waits for
while kill -0 "$driver" 2>/dev/null; do
  wait "$driver"
  code=$?
done
if [ "$code" = 143 ]; then
  wait "$driver"
  code=$?
fi
case $code in 0 | 1 | 2 | 3) exit "$code" ;; esac
# It was cut short, and the same job again goes on. One that was cancelled is no longer RUNNING.
if [ "$asked" = 1 ] || [ "${{SLURM_RESTART_COUNT:-0}}" -lt {retries} ]; then
  if [ "$(squeue --noheader --jobs="$task" --format=%T)" = RUNNING ]; then
    echo "saccade: cut short with exit code $code; $task is queued again" >&2
    scontrol requeue "$task"
  fi
fi
exit 75
"""
"""After the run was started in the background; takes ``retries``."""

RAY = """\
# A Ray of this job's own, on every node. Its head is here, on the first.
readarray -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}
host=${RAY_HEAD_HOST:-$(hostname -I | cut -d ' ' -f 1)}
host=${host:-127.0.0.1}
free_port() {
  python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}
address=$host:$(free_port)
# others on these machines may reach its ports, and without the token do nothing there
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
scratch=/tmp/saccade-ray-$SLURM_JOB_ID

on() { # COUNT OPTION COMMAND...: in a step with all that the job has on COUNT nodes
  local count=$1 which=$2
  shift 2
  srun --overlap --nodes="$count" --ntasks="$count" --ntasks-per-node=1 "$which" --mem=0 \\
    --cpus-per-task="$cpus" --kill-on-bad-exit=0 "$@"
}
start() { # COUNT OPTION MORE...
  local count=$1 which=$2
  shift 2
  on "$count" "$which" ray start --block --num-cpus="$cpus" --object-store-memory=128000000 \\
    --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 "$@" &
  steps+=($!)
}
end_ray() {
  trap '' TERM
  kill "${steps[@]}" 2>/dev/null
  wait
  on "${#nodes[@]}" --quiet rm -rf "$scratch"
}
ready() { # COUNT: as many nodes are in the Ray; the exit code of ray start says nothing of it
  python -m saccade.jobs await-nodes "$1" --address "$address" &
  local waiting=$!
  # whatever ends first: the wait for nodes, a node's Ray, or a signal
  wait -n
  local code=$?
  if [ "$code" = 0 ] && ! kill -0 "$waiting" 2>/dev/null; then return; fi
  kill "$waiting" 2>/dev/null
  echo "saccade: Ray did not start on $1 of ${#nodes[@]} nodes (${nodes[*]})" >&2
  if [ "$asked" = 1 ]; then exit 75; fi
  exit 1
}
steps=()
trap end_ray EXIT
start 1 --nodelist="${nodes[0]}" --head --node-ip-address="$host" --port="${address##*:}" \\
  --ray-client-server-port="$(free_port)" --include-dashboard=false --temp-dir="$scratch"
ready 1
if [ "${#nodes[@]}" -gt 1 ]; then
  start "$((${#nodes[@]} - 1))" --exclude="${nodes[0]}" --address="$address"
  ready "${#nodes[@]}"
fi
"""
"""Before the run: a Ray at ``$address``, which ends with the script."""
