#!/usr/bin/env bash
# The runs of a sweep as a Slurm array job: each task is one run, on one node, for as many jobs' time as it takes:
#
#   resnext sweep --config RECIPE RECIPE --seeds 0:3 --procs 8 --print data.root=DIR > runs.txt
#   sbatch --array=1-$(wc -l < runs.txt) --gpus-per-node=8 scripts/slurm_array.sh runs.txt
#
# Any option of sbatch wins over those below; task N runs line N of the file. Five minutes before its time is up a task
# saves its run and goes back into the queue; started again, it continues. Afterwards the same sweep without --print
# evaluates the runs, and compares them.
#
#SBATCH --job-name=resnext-sweep
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
# Without B: this goes to the processes that srun started, and not to this shell.
#SBATCH --signal=TERM@300
set -u

if [[ -z ${SLURM_ARRAY_TASK_ID-} || $# -ne 1 ]]; then
    sed -n '2,/^#SBATCH/s/^# \{0,1\}//p' "$0" | sed '/^SBATCH/d'
    [[ " $* " == *" --help "* || " $* " == *" -h "* ]] && exit 0
    echo 'slurm_array.sh: error: queue it by sbatch --array, with the file of command lines' >&2
    exit 2
fi

line=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$1")
if [[ -z $line ]]; then
    echo "slurm_array.sh: error: $1 has no line $SLURM_ARRAY_TASK_ID; give --array=1-$(wc -l < "$1")" >&2
    exit 2
fi
echo "$line"
srun --nodes=1 --ntasks=1 --cpu-bind=none bash -c "exec $line"
code=$?

# 75 is what a run ends with when a signal stopped it and it is saved.
if ((code == 75)); then
    echo "slurm_array.sh: the run is saved; job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$code"
