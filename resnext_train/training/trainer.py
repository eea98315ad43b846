"""A training run, from its first step to its last. Read this file first.

`Trainer.train` is the loop: load, step, log, evaluate, save, stop. `run.py` builds a `Trainer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Lock
from typing import Any, NoReturn

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpointer import Checkpointer
from resnext_train.checkpoint.resume import branch_from, is_elsewhere
from resnext_train.compute.backend import torch_refusals_explained
from resnext_train.data.build_loaders import build_train_loader
from resnext_train.data.device_loader import DeviceLoader
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.loader_workers import worker_deaths_explained
from resnext_train.distributed.flag_sync import StepFlags
from resnext_train.distributed.stop_signals import StopRequested, StopSignals
from resnext_train.errors import InputError, Preempted
from resnext_train.run_dir.console import ConsoleSink, print_warning
from resnext_train.run_dir.run_logger import RunLogger, open_sinks
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.sink import LogEnd
from resnext_train.training.build_step import build_train_step
from resnext_train.training.health import check_equal_weights, log_skipped, weights_digest
from resnext_train.training.pictures import Pictures
from resnext_train.training.progress import Progress, TorchRng
from resnext_train.training.run_facts import run_facts
from resnext_train.training.saved_run import SavedRun
from resnext_train.training.setup import Setup
from resnext_train.training.step_event import StepEvents
from resnext_train.training.throughput import Clock, DataWait, Lap
from resnext_train.training.train_metrics import Totals, epoch_results
from resnext_train.training.validation import Validation

_FIRST_SHOWN = 5
"""Steps after which the console shows first numbers, if none are logged before."""


class Trainer:
    """A run on this rank. The ranks do everything together; only rank 0 writes to the run folder."""

    def __init__(self, setup: Setup, folder: RunDir, saved: SavedRun | None, signals: StopSignals) -> None:
        """Build all parts of a run, as saved or new. Nothing is written before `begin`.

        Raises:
            InputError: the checkpoint holds another network, or model.weights do not fit.
        """
        recipe, context = setup.recipe, setup.context
        self.setup, self.folder, self.signals, self.context = setup, folder, signals, context
        self.log = RunLogger()
        self.checkpointer = Checkpointer(folder, recipe.checkpoint, self.log, writes=context.is_main)
        self.train_step = build_train_step(setup, fine_tune=saved is None)
        self._model, self._statistics = self.train_step.model, self.train_step.statistics
        self._meter, self._finite_watch = self.train_step.meter, self.train_step.watch
        self._step_events = StepEvents(setup, self.train_step)
        self._pictures = Pictures(setup, self.train_step, self.log)
        self._begins_branch = saved is not None and is_elsewhere(saved.path, folder)
        self.schedule = setup.schedule()
        self.progress = Progress()
        self._recording, self._is_recorded = Lock(), False
        self._facts = run_facts(setup) if context.is_main else {}
        self._parts = {
            **self.train_step.stateful_parts(),
            "schedule": self.schedule,
            "progress": self.progress,
            "checkpointer": self.checkpointer,
            "rng": TorchRng(),
        }
        if saved:
            context.run_on_all_ranks(lambda: self.load_state_dict(saved.state))
            if saved.is_last:
                self.checkpointer.continue_from_last(self.progress.step, self.progress.epoch_is_open)
        images = setup.splits.train
        self._clock, self._data_wait = Clock(), DataWait(setup.workers(), images.storage)
        self._validation = Validation(setup, self._log_unreadable)

    def begin(self, saved: SavedRun | None) -> None:
        """Prepare the run folder for a run that goes on from `saved`, and log the start.

        Raises:
            InputError: the folder cannot be written, or has no room.
        """
        self.check_room()
        self.context.run_on_main(lambda: self._prepare_folder(saved))
        origin = {"continued_from": str(saved.path.resolve())} if saved else {}
        self.log.write("start", step=self.progress.step, **origin, **{**self._facts, **self.setup.effective()})
        self._pictures.begin(self.progress.step)

    def check_room(self) -> None:
        """Check that the disk has room for the checkpoints; raises InputError if not."""
        recipe = self.setup.recipe
        size, keep = checkpoint_file.approximate_bytes(self.state_dict()), recipe.checkpoint.keep
        self.context.run_on_main(lambda: self.folder.check_room(size, keep))

    def _prepare_folder(self, saved: SavedRun | None) -> None:
        setup, recipe, folder = self.setup, self.setup.recipe, self.folder
        train = recipe.train
        if saved:  # newer checkpoints of this folder are given up: they become discarded_NAME
            branch_from(folder, saved.path, epochs=setup.epoch_of(self.progress.step) - 1)
        folder.create(recipe.to_yaml())
        end = saved.log_end if saved else LogEnd(0)
        per_epoch, total = setup.steps_per_epoch, setup.total_steps
        console = ConsoleSink(train.epochs, per_epoch, total, self.progress.step)
        self.log.open(open_sinks(folder, end, console, recipe.log.to, recipe.to_dict(), recipe.to_yaml()))
        folder.write_state("running", self.progress.step)

    def state_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint, see checkpoint_file.py."""
        return {name: part.state_dict() for name, part in self._parts.items()} | self.setup.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put every part that `state` has into its state.

        Raises:
            InputError: it is the state of another network.
        """
        for name, part in self._parts.items():
            if name not in state:
                continue
            try:
                part.load_state_dict(state[name])
            except RuntimeError as error:
                if name != "model":
                    raise
                recipe = self.setup.recipe
                text = f"the checkpoint holds another network than the recipe's {recipe.model.arch}"
                raise InputError(text) from error

    def train(self) -> dict[str, Any]:
        """Train from where the run is to its end, and return the summary. Raises what the function `train` does."""
        setup, progress, recipe = self.setup, self.progress, self.setup.recipe
        explained = worker_deaths_explained()  # inside: what is recorded is the explanation
        with (
            closing(self._validation),
            closing(self._train_loader()) as train_loader,
            closing(self._clock.timed(train_loader)) as micro_batches,
            self._failure_recorded(),
            self.context.dead_ranks_named(),
            explained,
            torch_refusals_explained(),
            self._statistics,
        ):
            try:
                self.train_step.warm_up_ddp_buckets(recipe.train.micro_batch, recipe.augment.size)
                if self._begins_branch:
                    self._save()  # from here on the run needs the other one no more
                self._clock.lap()  # the run's time counts from here
                if progress.epoch_is_open:  # the run ended before this epoch's evaluation did
                    self._end_epoch()
                first = progress.step
                while progress.step < setup.total_steps:
                    self._take_step(micro_batches)
                    at_end = progress.step == setup.total_steps
                    if at_end or progress.step % recipe.log.every == 0:
                        self._log_step()
                    elif progress.step - first == _FIRST_SHOWN < recipe.log.every and self.context.is_main:
                        self.log.show("step", **self._step_event(self.train_step.peek(), self._clock.peek()))
                    if at_end or progress.step % setup.steps_per_epoch == 0:
                        self._end_epoch()
                    elif self.checkpointer.is_due_after_step(progress.step):
                        self._save()
                    if not at_end:
                        self._sync_flags()
                return self._finish()
            except StopRequested as stop:
                self._save_and_exit(stop.signal_name)

    def _train_loader(self) -> DeviceLoader[ImageBatch]:
        setup, steps = self.setup, range(self.progress.step, self.setup.total_steps)
        images, report = setup.splits.train, self._log_unreadable
        return build_train_loader(setup.recipe, images, setup.plan, self.context, steps, report)

    def _log_unreadable(self, text: str) -> None:
        """Log an image that could not be read; ranks without the log print it."""
        if self.context.is_main:
            self.log.write("unreadable", step=self.progress.step, text=text)
        else:
            print_warning(f"process {self.context.rank}: {text}")

    def _take_step(self, micro_batches: Iterator[ImageBatch]) -> None:
        """Load this rank's share of a step and take it: gradients are summed over ranks, and changes made if finite."""
        setup, step = self.setup, self.progress.step
        size = setup.plan.step_size(step)
        self.train_step(micro_batches, step, size, self.schedule.lr(step))
        self._clock.took(size)
        self.progress.step += 1
        self.log.tick(setup.epoch_of(step), step % setup.steps_per_epoch + 1)

    def _log_step(self) -> None:
        """Log the mean over the steps since the last step line, or since the epoch's start."""
        self._check_health()
        window, lap = self._meter.take_window(), self._end_lap()
        if self.context.is_main:
            self.log.write("step", **self._step_event(window, lap))
            self._pictures.log_step(self.progress.step)
        if slow := self._data_wait.add(lap):
            self.log.write("slow_data", step=self.progress.step, **slow)

    def _step_event(self, window: Totals, lap: Lap) -> dict[str, Any]:
        step = self.progress.step
        return self._step_events.event(step, self.schedule.lr(step - 1), window, lap)

    def _end_lap(self) -> Lap:
        """Return the clock's lap that ends now, and add its time to the run's."""
        lap = self._clock.lap()
        self.progress.seconds += lap.seconds
        return lap

    def _check_health(self) -> None:
        """Wait for the device; log skipped steps; end the run where they are too many or the ranks' weights differ."""
        log_skipped(self.train_step, self.schedule, self.setup, self.log, self.progress.step)
        check_equal_weights(self.train_step.weights(), self.context, self.progress.step)

    def _end_epoch(self) -> None:
        """Evaluate if the recipe asks for it after this epoch, between two saves; log the epoch."""
        progress, setup, recipe = self.progress, self.setup, self.setup.recipe
        epoch = setup.epoch_of(progress.step - 1)
        at_end = progress.step == setup.total_steps
        self._check_health()
        evaluated, is_best = None, False
        if at_end or epoch % recipe.eval.every_epochs == 0:
            progress.epoch_is_open = True
            if not self.checkpointer.has_begun(progress.step, epoch_is_open=True):  # as where the run continues here
                self._save()  # the evaluation may fail, and must not take the epoch's training with it
            # Raises StopRequested where a rank received a signal: the epoch stays open.
            evaluated = self._validation(self.train_step.networks(), lambda: self._sync_flags(may_save=False))
            self.schedule.observe(100 - evaluated.counts.top1)
            progress.last = {"epoch": epoch, **evaluated.to_dict()}
            is_best = self.checkpointer.observe(progress.last)
        progress.epoch_is_open = False  # also where a changed recipe does not evaluate an epoch that was open
        self._end_lap()
        seconds = progress.seconds - progress.epoch_began
        results = epoch_results(self._meter.epoch, evaluated)
        self.log.write("epoch", step=progress.step, epoch=epoch, **results, seconds=seconds)
        if evaluated:
            self._pictures.log_epoch(progress.step)
        if progress.step % setup.steps_per_epoch == 0:  # else max_steps cut it short: a longer run may go on with it
            self._meter.end_epoch()
            progress.epoch_began = progress.seconds
        if at_end or is_best or self.checkpointer.is_due_after_epoch(epoch):
            self._save(is_best, epoch)

    def _sync_flags(self, may_save: bool = True) -> None:
        """Agree with the other ranks on the flags of all, and act on them: stop, save, or withdraw a lost best.

        On GPUs these are the flags of the call before, so that no step waits for their exchange.
        """
        checkpointer = self.checkpointer
        checkpointer.log_outcome()
        due = may_save and checkpointer.is_due_by_time()
        flags = StepFlags(self.signals.received, due, checkpointer.best_lost, checkpointer.is_failing)
        agreed = self.context.all_reduce_flags(flags)
        if agreed.saves_failing:
            raise checkpointer.fault(self.progress.step)
        checkpointer.withdraw_best(agreed.best_lost)
        if agreed.stop_signal:
            raise StopRequested(agreed.stop_signal)
        if agreed.save and may_save:
            self._save()

    def _save(self, is_best: bool = False, epoch: int | None = None) -> None:
        """Begin to write last.pt in the background; also best.pt if it `is_best`, and epoch_NNNN.pt if one is kept."""
        self.checkpointer.settle(self.context.gather)
        self._check_health()
        self._end_lap()  # the checkpoint holds all of the run's time
        self.checkpointer.save(self.state_dict(), {**self.results(), **self._facts}, is_best, epoch)
        self._end_lap()  # a save does not count in the images/s of the steps after it

    def _wait_saved(self) -> None:
        """Wait until the last checkpoint is safely on the disk; if it cannot be written, end the run."""
        if self.checkpointer.settle(self.context.gather):
            raise self.checkpointer.fault(self.progress.step)

    def results(self) -> dict[str, Any]:
        """Return what the run has reached; summary.json has this, and what the run was made with."""
        progress, plan, seconds = self.progress, self.setup.plan, self.progress.seconds
        return {
            "best": self.checkpointer.best,
            "last": progress.last,
            "epochs": progress.step // self.setup.steps_per_epoch,
            "steps": progress.step,
            "seconds": seconds,
            "images_per_s": plan.images_until(progress.step) / seconds if seconds else None,
            "unreadable": self._meter.unreadable,
            "skipped_steps": self._finite_watch.total,
        }

    def _finish(self) -> dict[str, Any]:
        """Wait for the last checkpoint, write the end event, and summary.json and state.json if they can be written."""
        self._wait_saved()
        results, step = self.results(), self.progress.step
        self.log.write("end", step=step, weights_sha256=weights_digest(self._model), **results)
        summary = {**results, **self._facts}
        if self.context.is_main:
            self.folder.write_summary(summary)
            self.folder.write_state("done", step)
        return summary

    @contextmanager
    def _failure_recorded(self) -> Iterator[None]:
        """Record in state.json and the log how a run fails; finish the checkpoint that is being written in any case."""
        try:
            with self.context.loss_recorded_by(self._record_failure):
                yield
        except BaseException as error:
            if not isinstance(error, Preempted):
                self._record_failure(error)
            raise
        finally:
            self.checkpointer.close()
            self.log.close()

    def _record_failure(self, error: BaseException) -> None:
        with self._recording:  # a thread may record that a rank is lost while this one notices it
            if self._is_recorded:
                return
            self._is_recorded = True
            self.checkpointer.close()  # first: a checkpoint that is still being written ends by writing state.json, too
            self.checkpointer.log_outcome()
            self.log.write("failed", step=self.progress.step, text=str(error) or type(error).__name__)
            if self.context.is_main:
                self.folder.write_state("failed", self.progress.step)

    def _save_and_exit(self, signal_name: str) -> NoReturn:
        """Save the run and end it in order, by Preempted."""
        step = self.progress.step
        failed = self.checkpointer.settle(self.context.gather)
        if failed or not self.checkpointer.has_begun(step, self.progress.epoch_is_open):  # time is short: not twice
            self._save()
        self._wait_saved()
        self.log.write("preempted", step=step, signal=signal_name)
        if self.context.is_main:
            self.folder.write_state("preempted", step, signal=signal_name)
        self.context.run_on_all_ranks(lambda: None)  # a launcher ends all ranks when one leaves
        raise Preempted(f"{signal_name}: saved at step {step} and stopped; the same command continues from there")
