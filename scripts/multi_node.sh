#!/usr/bin/env bash
# One training run on several hosts: start this once on each of them, with the same arguments everywhere.
# Signals, and what the loop does on them, are under "The loop" below.
set -u
# Under srun this shell is a task of a job step, but no rank: torchrun starts those.
unset SLURM_PROCID

usage() {
    cat <<'TEXT'
Usage: multi_node.sh --nodes N|MIN:MAX --head HOST[:PORT] [options] -- --config RECIPE --out DIR [section.key=value ...]

Starts `resnext train` under torchrun on this host, as one of several. Give the same line on every host, in any order.
What follows -- goes to `resnext train`; --out must be on a file system that all hosts share.

  --nodes N|MIN:MAX   how many hosts; with a range, the run goes on with as many as there are
  --head HOST[:PORT]  one of them, where they find each other (port 29400); it must stay up
  --procs N           processes on this host (default: its GPUs, or 1)
  --restarts N        how often a process may fail, or another host be lost, before this host gives up (default 3)
  --rdzv-conf K=V,..  further settings of torchrun's rendezvous, which win over this script's

Exit code: 0 done; 75 the run is saved and waits to be started again; 2 wrong usage; else torchrun's.
SIGTERM, SIGINT and SIGHUP save the run and end this host's part. SIGUSR1 saves it and starts it again.
The environment variable PYTHON names the interpreter (default python3).
TEXT
}

announce() { echo "multi_node.sh: $*" >&2; }

refuse() {
    announce "error: $*"
    exit 2
}

nodes='' head='' procs='' restarts=3 conf='' out=''
while (($#)); do
    case $1 in
        --help | -h) usage && exit 0 ;;
        --nodes | --head | --procs | --restarts | --rdzv-conf)
            (($# > 1)) || refuse "$1 needs a value; see --help"
            case $1 in
                --nodes) nodes=$2 ;;
                --head) head=$2 ;;
                --procs) procs=$2 ;;
                --restarts) restarts=$2 ;;
                --rdzv-conf) conf=,$2 ;;
            esac
            shift 2
            ;;
        --) shift && break ;;
        *) refuse "unknown argument $1; what is for resnext train goes behind --, see --help" ;;
    esac
done

# ---- A mistake in the arguments ends in one sentence.

range='^([1-9][0-9]*)(:([1-9][0-9]*))?$'
[[ $nodes =~ $range ]] || refuse "--nodes takes a number of hosts or a range such as 1:4"
least=${BASH_REMATCH[1]} most=${BASH_REMATCH[3]:-${BASH_REMATCH[1]}}
((least <= most)) || refuse "--nodes $nodes: the range starts above its end"
endpoint='^(\[([0-9a-fA-F:]+)\]|[^]:[]+)(:([0-9]+))?$'
[[ $head =~ $endpoint ]] || refuse "--head takes HOST or HOST:PORT, the same on every host"
host=${BASH_REMATCH[2]:-${BASH_REMATCH[1]}} port=${BASH_REMATCH[4]:-29400}
((10#$port > 0 && 10#$port < 65536)) || refuse "--head $head: $port is no port"
[[ -z $procs || $procs =~ ^[1-9][0-9]*$ ]] || refuse "--procs takes a number of processes, not $procs"
[[ $restarts =~ ^[0-9]+$ ]] || refuse "--restarts takes a number, not $restarts"

train=("$@")
for ((i = 0; i < $#; i++)); do
    case ${train[i]} in
        --out) out=${train[i + 1]:-} ;;
        --out=*) out=${train[i]#--out=} ;;
        --procs | --procs=* | --gpus | --gpus=*) refuse "${train[i]%%=*} is for this script: give it before --" ;;
    esac
done
[[ -n $out ]] || refuse "give resnext train its run folder, behind --: --out DIR, on a file system that all hosts share"

python=${PYTHON:-python3}
command -v "$python" > /dev/null || refuse "no $python on the path; PYTHON=/path/to/.venv/bin/python names another"
for tool in ip getent setsid; do
    command -v "$tool" > /dev/null || refuse "this script needs the command $tool"
done

# ---- Which of its addresses this host speaks from, and whether it is the head.

address=$(getent ahostsv4 "$host" | awk 'NR == 1 { print $1 }')
address=${address:-$(getent ahosts "$host" | awk 'NR == 1 { print $1 }')}
[[ -n $address ]] || refuse "--head $head: this host knows no address of $host"
route=$(ip -oneline route get "$address" 2> /dev/null) || refuse "--head $head: there is no route to $address"
after() { awk -v word="$1" '{ for (i = 1; i < NF; i++) if ($i == word) { print $(i + 1); exit } }' <<< "$route"; }
if [[ $route == local* ]]; then
    # The name may stand for an address that only this host can reach, such as Debian's 127.0.1.1.
    [[ $address != 127.* && $address != ::1 ]] || ((most == 1)) \
        || refuse "--head $head is $address on this host, where no other host reaches it; give its address in the network"
    is_host=1 here=$address
    interface=$(ip -oneline address show to "$address" | awk 'NR == 1 { print $2 }')
else
    is_host=0 here=$(after src) interface=$(after dev)
fi
interface=${interface:-lo}
[[ $address != *:* ]] || address="[$address]"

# ---- The processes of this host.

gpus=0
if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    gpus=$(tr ',' '\n' <<< "$CUDA_VISIBLE_DEVICES" | grep -c .)
elif command -v nvidia-smi > /dev/null; then
    gpus=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU')
fi
procs=${procs:-$((gpus > 0 ? gpus : 1))}
if [[ -z ${OMP_NUM_THREADS:-} ]]; then
    cores=$(nproc)
    export OMP_NUM_THREADS=$((cores > procs ? cores / procs : 1))
    export RESNEXT_TRAIN_THREADS=auto # each rank may correct it, by the cores that it is bound to
fi
# Gloo would take the address that the host's name resolves to, which is often a loopback one; NCCL might meet at that of
# a bridge, and takes a name for the beginning of one unless "=" is before it.
export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface}
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-=$interface}
# Finishing a step and writing a checkpoint may take longer than the 30 s after which torchrun kills its processes.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
# Each round gets a store of its own, on the host of its rank 0. The store that agents share otherwise is looked up
# once: hosts that stay would go on looking for the one of a host that was lost and has come back.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# read_timeout, join_timeout: a host waits 15 minutes for the head and for the others: time for a reboot, or for a queue.
# last_call_timeout: with a range, how long the hosts there wait for more. Longer than the 30 s that torchrun gives
#   processes to end before it kills them, or else a host with such processes would come late and interrupt again.
# keep_alive_*: a host that is silent for 10 s is lost. Hosts compare times of their own clocks: much less would need
#   clocks that agree better than they may.
rendezvous=is_host=$is_host,read_timeout=900,join_timeout=900,last_call_timeout=45
rendezvous+=,keep_alive_interval=2,keep_alive_max_attempt=5$conf

# torchrun dies of a signal that it does not handle, and leaves orphans.
signals=$("$python" -c 'from resnext_train.distributed.stop_signals import SIGNALS_TO_HANDLE as s; print(s)') \
    || refuse "$python cannot import resnext_train; PYTHON=/path/to/.venv/bin/python names another"

# shellcheck disable=SC2054  # the commas are torchrun's
command=("$python" -m torch.distributed.run
    "--nnodes=$nodes" "--nproc-per-node=$procs" "--max-restarts=$restarts"
    --rdzv-backend=c10d "--rdzv-endpoint=$address:$port" "--rdzv-conf=$rendezvous"
    "--rdzv-id=$(cksum <<< "$out" | cut -d ' ' -f 1)" # runs that meet at one port by mistake do not mix
    "--local-addr=$here" "--signals-to-handle=$signals")
if ((gpus > 0)) && command -v numactl > /dev/null; then # which torchrun needs for it
    command+=(--numa-binding=node)
fi
command+=(-m resnext_train train "${train[@]}")

# ---- A new run is checked first, by one process: torchrun would print a mistake once per process and per restart.

state=$out/state.json
if [[ ! -e $state ]]; then
    RESNEXT_TRAIN_PLANNED_PROCESSES=$((most * procs)) \
        "$python" -m resnext_train train --dry-run "${train[@]}" > /dev/null || exit
fi

# ---- The loop.
#
# A signal to any process makes all of the run save together and end: the signal's own host has torchrun end, other
# hosts' torchrun starts its processes again and waits for the missing host. All hosts then read "preempted" in
# state.json. A host that was asked to stop leaves, with 75. One that was only asked to save comes back, as does one
# whose torchrun ended because the head's did. But "preempted" may also be from before torchrun started here: then
# nothing was trained since, the reason is not a signal, and another start would end in the same way.

child='' forwarded='' stop=''
# shellcheck disable=SC2329  # the traps call it
forward() {
    # Once: torchrun would leave its processes to themselves on a third signal. A terminal's Ctrl-C reaches only this
    # shell, since torchrun is in a session of its own.
    [[ -n $forwarded || -z $child ]] || kill -s "$1" "$child" 2> /dev/null
    forwarded=$1
}
trap 'stop=yes; forward TERM' TERM INT HUP
trap 'forward USR1' USR1

field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([a-z0-9]*\).*/\1/p" "$state" 2> /dev/null; }
stamp() { stat -c '%i %y' "$state" 2> /dev/null; }

while [[ -z $stop ]]; do
    before=$(stamp)
    forwarded=''
    setsid "${command[@]}" &
    child=$!
    [[ -z $stop$forwarded ]] || kill -s "${forwarded:-TERM}" "$child" # arrived before this shell knew whom to tell
    while wait "$child"; code=$?; ((code > 128)) && kill -0 "$child" 2> /dev/null; do :; done # a signal ends wait early
    wait "$child"
    code=$?
    child=''
    ((code == 0)) && exit 0
    [[ $(field status) == preempted ]] || exit "$code"
    [[ -n $stop || $(stamp) != "$before" ]] || exit "$code"
    [[ -n $stop ]] || announce "the run is saved after step $(field step); starting again"
done
announce "the run is saved after step $(field step)"
exit 75
