#!/usr/bin/env bash
# A Slurm of its own on this machine, for trials and tests: without systemd, cgroups or a database.
#
#   infra/slurm.sh up FOLDER [NODES]    start it; prints the line that has sbatch find it
#   infra/slurm.sh down FOLDER          cancel what runs and stop it
#
# It needs Debian's slurm-wlm and munge, and root, as slurmd does. Configuration, keys, logs and
# state stay in FOLDER. Nodes are virtual: NODES daemons (else one), each with all processors.
set -euo pipefail

here=$(hostname -s)

fail() {
  echo "slurm.sh: $*" >&2
  exit 1
}

# credentials expire early because a job that is queued again waits until its last one has
configuration() {
  local node memory_mib
  memory_mib=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
  cat <<END
ClusterName=trial
SlurmctldHost=$here(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
JobRequeue=1
MinJobAge=3600
KillWait=30
ReturnToService=2
END
  for ((node = 1; node <= nodes; node++)); do
    echo "NodeName=trial$node NodeHostname=$here NodeAddr=127.0.0.1 Port=$((port + node))" \
      "CPUs=$(nproc) RealMemory=$memory_mib State=UNKNOWN"
  done
  echo "PartitionName=trial Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP"
}

wait_until() { # SECONDS WHAT COMMAND...
  local left=$(($1 * 5)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((left-- > 0)) || fail "$what is not there; the logs in $folder say why"
    sleep 0.2
  done
}

all_idle() {
  [ "$(sinfo -h -N -o %T | grep -cx idle)" = "$nodes" ]
}

free_ports() { # the first of as many ports that nobody listens on
  python3 - "$((nodes + 1))" <<'END'
import socket, sys

for first in range(16817, 32000, 64):
    try:
        for port in range(first, first + int(sys.argv[1])):
            with socket.socket() as listener:
                listener.bind(("", port))
    except OSError:
        continue
    print(first)
    break
END
}

up() {
  command -v sbatch slurmctld slurmd munged >/dev/null ||
    fail "Slurm expected; install it with: apt-get install --no-install-recommends slurm-wlm munge"
  [ "$(id -u)" = 0 ] || fail "root expected, as which slurmd runs; found $(id -un)"
  [ ! -e "$folder/slurm.conf" ] || fail "$folder has a Slurm; 'slurm.sh down $folder' stops it"
  mkdir -p "$folder/state"
  chmod 755 "$folder"
  port=$(free_ports)
  configuration >"$folder/slurm.conf"
  (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
  # --force: its folder may lie below one that others may write to
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
    --seed-file="$folder/munge.seed" 2>"$folder/munged.start.log" ||
    fail "munged does not start: $(tail -1 "$folder/munged.start.log")"
  wait_until 10 munged munge --socket="$folder/munge.socket" --no-input
  slurmctld
  for ((node = 1; node <= nodes; node++)); do
    mkdir -p "$folder/spool-trial$node"
    slurmd -N "trial$node"
  done
  wait_until 60 "an idle node" all_idle
  echo "export SLURM_CONF=$SLURM_CONF"
}

stop_daemon() { # PIDFILE: asked first, ended after ten seconds
  local pid left=50
  pid=$(cat "$1" 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null && ((left-- > 0)); do sleep 0.2; done
  kill -9 "$pid" 2>/dev/null || true
}

nobody_works() {
  [ -z "$(squeue -h)" ]
}

down() {
  local pidfile left=100
  [ -e "$folder/slurm.conf" ] || fail "$folder has no Slurm"
  timeout 20 scancel --user="$(id -un)" 2>/dev/null || true
  until nobody_works || ((left-- <= 0)); do sleep 0.2; done
  for pidfile in "$folder"/slurmd-*.pid "$folder/slurmctld.pid" "$folder/munged.pid"; do
    stop_daemon "$pidfile"
  done
  mv "$folder/slurm.conf" "$folder/slurm.conf.stopped"
}

[ $# -ge 2 ] || fail "'up FOLDER [NODES]' or 'down FOLDER' expected"
folder=$(realpath -m "$2")
nodes=${3:-1}
export SLURM_CONF=$folder/slurm.conf
case $1 in
  up) up ;;
  down) down ;;
  *) fail "'up' or 'down' expected; found '$1'" ;;
esac
