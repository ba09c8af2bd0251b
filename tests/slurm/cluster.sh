#!/usr/bin/env bash
# A real SLURM cluster of three nodes on one machine, for tests: controller, accounting, three slurmd, all on loopback,
# in a folder of their own and with a munge key, a socket and ports of their own. Beside a system's own SLURM it runs
# undisturbed and undisturbing.
#
#   cluster.sh up DIR           start it; then `export SLURM_CONF=DIR/etc/slurm.conf`
#   cluster.sh node DIR NAME    start the slurmd of a node again whose processes were killed
#   cluster.sh down DIR         end its jobs and daemons, and remove DIR
#
# Debian: slurm-wlm munge slurmdbd mariadb-server-core mariadb-client-core. Root, since every slurmd gets a namespace in
# which its node's name leads to loopback.
set -euo pipefail
USAGE="usage: cluster.sh up|down DIR, or node DIR NAME"
LAB=$(readlink -m "${2:?$USAGE}")
MARK=$LAB/.slurm-lab # what `down` may remove has this file, which `up` makes in a folder that was empty
NODES=3 CPUS_PER_NODE=8
RUN=$LAB/run
export SLURM_CONF=$LAB/etc/slurm.conf MYSQL_UNIX_PORT=$RUN/mysql.sock

until_true() { # WHAT COMMAND...: poll for up to a minute
  local what=$1 end=$((SECONDS + 60))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then echo "cluster.sh: $what did not come up; see $LAB/log" >&2; exit 1; fi
    sleep 0.1
  done
}

free_ports() { # N: that many free ports, below those of outgoing connections
  python3 - "$1" <<'PYTHON'
import random, socket, sys
found, held = [], []
while len(found) < int(sys.argv[1]):
    taken = socket.socket()
    try:
        taken.bind(("127.0.0.1", random.randint(12000, 19999)))
    except OSError:
        continue
    held.append(taken)
    found.append(taken.getsockname()[1])
print(*found)
PYTHON
}

write_config() {
  local controller accounting node1 node2 node3 memory
  read -r controller accounting node1 node2 node3 < <(free_ports 5)
  memory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.8) }' /proc/meminfo)
  cat >"$LAB/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=$RUN/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$accounting
CommunicationParameters=NoInAddrAny
SlurmUser=$(id -un)
LogFile=$LAB/log/slurmdbd.log
PidFile=$RUN/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
  chmod 600 "$LAB/etc/slurmdbd.conf"
  # A requeued job waits for its credential to expire. MaxArraySize is small so that a sweep has to be cut. Several
  # slurmd share a kernel: no cgroups. The first job id is never one of an earlier cluster.
  cat >"$SLURM_CONF" <<CONF
ClusterName=lab
FirstJobId=$((1000 + $(date +%s) % 1000000))
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$controller
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$RUN/munge.socket,cred_expire=8
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool/%n
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd-%n.pid
SlurmctldLogFile=$LAB/log/slurmctld.log
SlurmdLogFile=$LAB/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MinJobAge=3600
KillWait=5
SlurmdTimeout=40
MaxArraySize=6
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$accounting
AccountingStoragePass=$RUN/munge.socket
NodeName=node1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$node1 CPUs=$CPUS_PER_NODE RealMemory=$memory
NodeName=node2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$node2 CPUs=$CPUS_PER_NODE RealMemory=$memory
NodeName=node3 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$node3 CPUs=$CPUS_PER_NODE RealMemory=$memory
PartitionName=main   Nodes=ALL Default=YES PriorityTier=1  PreemptMode=OFF
PartitionName=low    Nodes=ALL             PriorityTier=1  PreemptMode=REQUEUE GraceTime=20
PartitionName=abrupt Nodes=ALL             PriorityTier=1  PreemptMode=REQUEUE GraceTime=0
PartitionName=high   Nodes=ALL             PriorityTier=10 PreemptMode=OFF
CONF
}

start_accounting() {
  mariadb-install-db --no-defaults --datadir="$LAB/mysql" --user="$(id -un)" \
    --auth-root-authentication-method=normal --skip-test-db >"$LAB/log/mariadb-install.log" 2>&1
  setsid mariadbd --no-defaults --datadir="$LAB/mysql" --user="$(id -un)" --socket="$MYSQL_UNIX_PORT" \
    --skip-networking --pid-file="$RUN/mariadbd.pid" --innodb-buffer-pool-size=32M --innodb-log-file-size=16M \
    --innodb-flush-log-at-trx-commit=0 </dev/null >"$LAB/log/mariadbd.log" 2>&1 &
  until_true mariadbd mariadb --no-defaults -u root -S "$MYSQL_UNIX_PORT" -e 'select 1'
  mariadb --no-defaults -u root -S "$MYSQL_UNIX_PORT" -e "
    create database slurm_acct_db; create user slurm@localhost identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@localhost;"
  slurmdbd
  until_true slurmdbd sacctmgr --noheader --immediate list cluster
  sacctmgr --immediate --quiet add cluster lab >/dev/null
}

nodes_are_idle() { [ "$(sinfo --noheader --Node --partition=main --format='%N %t' | grep -c ' idle$')" = "$NODES" ]; }

start_node() { # NAME
  mkdir -p "$LAB/spool/$1"
  unshare --mount --uts sh -c 'mount --bind "$1" /etc/hosts && hostname "$2" && exec slurmd -N "$2"' \
    sh "$LAB/etc/hosts" "$1"
}

up() {
  mkdir -p "$LAB"
  if [ -n "$(ls -A "$LAB")" ]; then echo "cluster.sh: $LAB is not empty: name a new folder" >&2; exit 2; fi
  touch "$MARK"
  mkdir -p "$LAB"/{etc,run,log,spool,state,munge,mysql}
  chmod 755 "$LAB" "$LAB"/{etc,run,log,spool,state}
  chmod 700 "$LAB/munge"
  head -c 1024 /dev/urandom >"$LAB/munge/munge.key"
  chmod 600 "$LAB/munge/munge.key"
  munged --force --key-file="$LAB/munge/munge.key" --socket="$RUN/munge.socket" --pid-file="$RUN/munged.pid" \
    --log-file="$LAB/munge/munged.log" --seed-file="$LAB/munge/munged.seed" --num-threads=2
  until_true munged munge --no-input --socket "$RUN/munge.socket"
  write_config
  start_accounting
  slurmctld
  until_true slurmctld scontrol ping
  { cat /etc/hosts; echo "127.0.0.1 node1 node2 node3"; } >"$LAB/etc/hosts"
  for number in $(seq "$NODES"); do start_node "node$number"; done
  until_true "three idle nodes" nodes_are_idle
}

stop_daemon() { # NAME: end the process of that pid file, if it still is that program
  local file=$RUN/$1.pid pid
  [ -s "$file" ] || return 0
  pid=$(cat "$file")
  case "$(cat "/proc/$pid/comm" 2>/dev/null || true)" in "${1%%-*}"*) ;; *) return 0 ;; esac
  kill -TERM "$pid" 2>/dev/null || return 0
  for _ in $(seq 150); do
    [ -d "/proc/$pid" ] && [ "$(ps -o stat= -p "$pid" | cut -c1)" != Z ] || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

queue_is_empty() { [ -z "$(timeout 5 squeue --noheader)" ]; }

kill_what_jobs_left() { # by the configuration in its environment, which nobody else's process has
  local environment pid
  for environment in /proc/[0-9]*/environ; do
    pid=${environment#/proc/} pid=${pid%/environ}
    [ "$pid" != $$ ] && [ "$pid" != $PPID ] || continue
    if tr '\0' '\n' 2>/dev/null <"$environment" | grep -qx "SLURM_JOB_ID=.*" &&
      tr '\0' '\n' 2>/dev/null <"$environment" | grep -qxF "SLURM_CONF=$SLURM_CONF"; then
      kill -KILL "$pid" 2>/dev/null || true
    fi
  done
}

down() {
  if [ ! -e "$MARK" ]; then echo "cluster.sh: $LAB is no folder of a cluster that this script made" >&2; exit 2; fi
  if [ -s "$RUN/slurmctld.pid" ]; then
    timeout 10 scancel --state=PENDING,RUNNING,SUSPENDED --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 75); do queue_is_empty && break; sleep 0.2; done
    kill_what_jobs_left
  fi
  for number in $(seq "$NODES"); do stop_daemon "slurmd-node$number"; done
  for name in slurmctld slurmdbd mariadbd munged; do stop_daemon "$name"; done
  rm -rf "$LAB"
}

case ${1:-} in
  up) up ;;
  node) start_node "${3:?$USAGE}"; until_true "three idle nodes" nodes_are_idle ;;
  down) down ;;
  *) echo "$USAGE" >&2; exit 2 ;;
esac
