"""What happens between steps: the processes agree, save, stop when they are told to, and see that all is well."""

from __future__ import annotations

import hashlib
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import nn

from resnext_train.data.loader import Group
from resnext_train.data.randomness import permutation
from resnext_train.errors import FaultError, Preempted
from resnext_train.metrics import Skipped
from resnext_train.run import TOO_MANY_FAILED, Run, Wishes
from resnext_train.state import capture


class Told(Exception):  # noqa: N818 (no error)
    """All processes have agreed to stop, since one of them received `signal`."""

    def __init__(self, signal: int) -> None:
        self.signal = signal


def stoppable(run: Run, blocks: Iterator[Group]) -> Iterator[Group]:
    """`blocks`, until the processes agree to stop; a process that has fewer of them agrees as often as the others."""
    if run.setup.process.is_main:
        _note_saved(run, wait=True)  # a best one that was not saved must be known before the next is looked for
    for _ in range(run.val_loader.sampler.rounds):  # type: ignore[attr-defined]
        heed(run, may_save=False)
        if block := next(blocks, None):
            yield block


def heed(run: Run, may_save: bool) -> None:
    """At a boundary: agree with the other processes on what any of them wishes, and do it.

    Raises:
        Told: to stop.
        FaultError: checkpoints cannot be written.
    """
    wishes = Wishes(run.signals.received, 0, 0)
    if run.setup.process.is_main:
        _note_saved(run, wait=False)
        minutes, limit = (time.monotonic() - run.saved_at) / 60, run.setup.recipe.checkpoint.every_minutes
        due = may_save and limit is not None and minutes > limit
        if due:
            run.saved_at = time.monotonic()  # on GPUs the wish comes true a step later, and must not be made again
        wishes, run.trouble = Wishes(run.signals.received, due, run.trouble), 0
    agreed = Wishes(*run.agreement.at_boundary([int(wish) for wish in wishes]))
    if agreed.trouble == TOO_MANY_FAILED:
        _stop_unsaved(run)
    if run.progress.best and run.progress.best["epoch"] == agreed.trouble:
        run.progress.best = run.best_before
    if agreed.signal:
        raise Told(agreed.signal)
    if agreed.save and may_save:
        save(run)


def save(run: Run, is_best: bool = False, epoch: int | None = None) -> None:
    """Begin to write last.pt, and give it the names best.pt and epoch_NNNN.pt where they apply."""
    settle(run)
    run.saved_at = time.monotonic()
    if run.setup.process.is_main:
        step, summary = run.progress.step, summary_of(run)

        def then() -> None:
            run.folder.write_state("running", step)
            run.folder.write_summary(summary)

        _note_saved(run, wait=True)
        run.saver.save(capture(run), is_best, epoch, then)
    run.progress.seconds += run.clock.lap().seconds


def _note_saved(run: Run, wait: bool) -> None:
    """On the first process: log what became of the last checkpoint, if that is known, or waited for."""
    saved = run.saver.outcome(wait)
    if saved is None:
        return
    if not saved.problem:
        run.log.write(
            "checkpoint", step=saved.step, path=str(run.folder.last), best=saved.best_epoch > 0, seconds=saved.seconds
        )
        return
    limit = run.setup.recipe.checkpoint.max_failures
    run.trouble = TOO_MANY_FAILED if run.saver.failures > limit else max(run.trouble, saved.best_epoch)
    text = f"the checkpoint of step {saved.step} could not be written: {saved.problem}; the one before is kept"
    if run.trouble != TOO_MANY_FAILED:
        text += f", training goes on ({run.saver.failures} of {limit} such failures in a row that are tolerated)"
    run.log.write("checkpoint_failed", step=saved.step, text=text)


def _stop_unsaved(run: Run) -> NoReturn:
    raise FaultError(
        f"stopped at step {run.progress.step}, because checkpoints cannot be written to {run.folder.checkpoints}; make "
        "room on its disk, and start the same command again: it continues from the last checkpoint"
    )


def wait_saved(run: Run) -> None:
    """Wait until the last checkpoint is on the disk for good.

    Raises:
        FaultError: it cannot be written.
    """
    if run.setup.process.is_main:
        _note_saved(run, wait=True)
    if any(run.setup.process.gather(run.saver.failures)):
        _stop_unsaved(run)


def leave(run: Run, number: int) -> NoReturn:
    """Save where the run is, and end it in order.

    Raises:
        Preempted: always.
        FaultError: it cannot be saved.
    """
    name, step = signal.Signals(number).name, run.progress.step
    save(run)
    wait_saved(run)
    run.log.write("preempted", step=step, signal=name)
    if run.setup.process.is_main:
        run.folder.write_state("preempted", step, signal=name)
    run.setup.process.together(lambda: None)  # torchrun ends all processes when the first one leaves
    raise Preempted(f"{name}: saved at step {step} and stopped; the same command continues from there")


def summary_of(run: Run) -> dict[str, Any]:
    """What summary.json says of a run."""
    progress = run.progress
    images = sum(run.setup.plan.step_size(s) for s in range(progress.step % run.setup.plan.steps_per_epoch))
    epochs = progress.step // run.setup.plan.steps_per_epoch
    images += epochs * (run.setup.plan.images - run.setup.plan.dropped)
    return {
        "best": progress.best,
        "last": progress.last,
        "epochs": epochs,
        "steps": progress.step,
        "seconds": progress.seconds,
        "images_per_s": images / progress.seconds if progress.seconds else None,
        "unreadable": run.step.meter.run.unreadable,
        "skipped_steps": run.step.watch.total,
    }


def settle(run: Run) -> None:
    """Wait for the device, and see that all is well: sums, steps that were skipped, the weights of all processes.

    Raises:
        FaultError: too many steps were skipped in a row, or the processes' weights differ.
    """
    run.step.meter.read()
    for skipped in run.step.watch.read():
        run.log.write("skipped", **_told_of(skipped, run))
        limit = run.setup.recipe.train.max_skipped
        if skipped.in_a_row > limit:
            first, last = skipped.step + 2 - skipped.in_a_row, skipped.step + 1
            raise FaultError(
                f"stopped after step {run.progress.step}: steps {first} to {last} were not finite (learning rate "
                f"{run.schedule.lr(skipped.step):g}; log.jsonl has their images), and the weights before may be spoilt "
                "as well; start anew with another --out and a lower optimizer.lr, or continue from an older checkpoint "
                "by --resume PATH"
            )
    if run.setup.process.world > 1:
        sums = run.setup.process.gather(weights_sum(run.model))
        common, votes = Counter(sums).most_common(1)[0]
        if other := [str(rank) for rank, weights in enumerate(sums) if weights != common]:
            named = f"of process {' and '.join(other)} of {len(sums)} (counted from 0) differ from the others'"
            if 2 * votes <= len(sums):
                named = f"of the {len(sums)} processes differ, and which are right cannot be told"
            raise FaultError(
                f"stopped at step {run.progress.step}: the weights {named}, as faulty hardware makes them; the same "
                "command continues from the last checkpoint"
            )


def _told_of(skipped: Skipped, run: Run) -> dict[str, Any]:
    """What the log says of a skipped step: its learning rate and the images of the groups at fault, or of all."""
    setup = run.setup
    seed, plan = setup.recipe.train.seed, setup.plan
    groups = plan.groups_of(skipped.step, permutation(seed, skipped.step // plan.steps_per_epoch, plan.images))
    images = [int(i) for number in skipped.groups or range(plan.groups) for i in groups[number]]
    what = f"the loss of {len(skipped.groups)} of {plan.groups} BN groups" if skipped.groups else "the gradient"
    lr = run.schedule.lr(skipped.step)
    names = ", ".join(setup.splits.train.name(i) for i in images[:2])
    text = f"step {skipped.step + 1} was skipped: {what} is not finite (learning rate {lr:g}; images {names}, ...)"
    return {"step": skipped.step + 1, "lr": lr, "groups": skipped.groups, "images": images, "text": text}


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, in order."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_sum(model: nn.Module) -> int:
    """The sum of all parameters and buffers, their bits taken as integers: cheap, and another after any one change."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    with torch.no_grad():
        sums = [t.view(kinds[t.element_size()]).sum(dtype=torch.int64) for t in model.state_dict().values()]
        return int(torch.stack(sums).sum())
