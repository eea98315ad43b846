#!/usr/bin/env bash
# One training run as a Slurm job, on whole nodes, for as many jobs' time as it takes:
#
#   sbatch --nodes=4 --gpus-per-node=8 scripts/slurm.sh -- --config RECIPE --out DIR data.root=DIR [section.key=value ...]
#
# Any option of sbatch wins over those below. What stands before -- goes to multi_node.sh beside this file, what follows
# to `resnext train`. Five minutes before its time is up the job saves the run and goes back into the queue; started again,
# it continues. `scancel` saves the run too, within the 30 s (KillWait) that Slurm leaves it, and ends the job.
#
#SBATCH --job-name=resnext-train
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
# Without B: this goes to the processes that srun started, each node's multi_node.sh, and not to this shell. It is
# SIGTERM because they are to stop, on all nodes. Slurm may send it up to a minute early.
#SBATCH --signal=TERM@300
set -u

if [[ -z ${SLURM_JOB_ID-} ]]; then
    sed -n '2,/^#SBATCH/s/^# \{0,1\}//p' "$0" | sed '/^SBATCH/d'
    [[ " $* " == *" --help "* || " $* " == *" -h "* ]] && exit 0
    echo 'slurm.sh: error: this is no Slurm job; queue it by sbatch' >&2
    exit 2
fi

out=''
arguments=("$@")
for ((i = 0; i < $#; i++)); do
    case ${arguments[i]} in
        --out) out=${arguments[i + 1]:-} ;;
        --out=*) out=${arguments[i]#--out=} ;;
    esac
done

# Slurm runs a copy of this file; the job knows where it was.
job=$(scontrol show job "$SLURM_JOB_ID")
script=$(sed -n 's/^ *Command=\([^ ]*\).*/\1/p' <<< "$job")
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # jobs that share a node do not meet

# The agent gets all cores of its node. One node that ends must not end the others: they may still be saving.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    --cpu-bind=none --kill-on-bad-exit=0 --wait=0 \
    "$(dirname "$script")/multi_node.sh" --nodes "$SLURM_JOB_NUM_NODES" --head "$head:$port" "$@"
code=$?

# 75 is what multi_node.sh ends with when a signal stopped it and the run is saved.
if ((code == 75)) && grep -q '"preempted"' "$out/state.json"; then
    echo "slurm.sh: the run in $out is saved; job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$code"
