"""The evaluations of a run: on its validation images, and on the sets that eval.also names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from resnext_train.checkpoint.stored_weights import Kind
from resnext_train.compute.metrics import EvalCounts
from resnext_train.data.build_loaders import Evaluation, Report, build_color_transform, build_eval_loader
from resnext_train.data.device_loader import DeviceLoader
from resnext_train.data.eval_batches import EvalBatch
from resnext_train.evaluation.build_scoring import build_scoring
from resnext_train.evaluation.evaluate import evaluate
from resnext_train.evaluation.inference_network import inference_network
from resnext_train.evaluation.member import Member
from resnext_train.run_dir.console import evaluation_shown
from resnext_train.training.setup import Setup
from resnext_train.training.train_metrics import Evaluated


class Validation:
    """Evaluates a run's networks on all its sets. The loader processes of the validation images live until `close`."""

    def __init__(self, setup: Setup, report: Report) -> None:
        self._setup, self._report = setup, report
        self._loader = self._open(setup.evaluation)

    def __call__(self, networks: Mapping[Kind, nn.Module], before_batch: Callable[[], None]) -> Evaluated:
        """Return the counts of all `networks`, on the validation images and on each set of eval.also.

        They are evaluated side by side, in one pass over the images, and count as they would alone. Calls
        `before_batch` before each batch, on all ranks equally often; what it raises ends the evaluation.

        Raises:
            InputError: no image of a set can be read.
        """
        evaluated = [inference_network(network) for network in networks.values()]
        counts = self._evaluate(evaluated, self._setup.evaluation, self._loader, before_batch)
        also: dict[str, list[EvalCounts]] = {}
        for name, evaluation in self._setup.also.items():
            loader = self._open(evaluation)  # one after another: more sets take no more memory than one
            try:
                also[name] = self._evaluate(evaluated, evaluation, loader, before_batch, name)
            finally:
                loader.close()
        of_kind = {
            kind: Evaluated(counts[i], {name: of_set[i] for name, of_set in also.items()})
            for i, kind in enumerate(networks)
        }
        return replace(of_kind["model"], ema=of_kind.get("ema"))

    def _open(self, evaluation: Evaluation) -> DeviceLoader[EvalBatch]:
        return build_eval_loader(self._setup.recipe, evaluation.images, self._setup.context, self._report)

    def _evaluate(
        self,
        networks: Sequence[nn.Module],
        evaluation: Evaluation,
        loader: Iterable[EvalBatch],
        before_batch: Callable[[], None],
        name: str = "",
    ) -> list[EvalCounts]:
        setup, context = self._setup, self._setup.context
        shown = evaluation_shown(
            _announced(loader, before_batch), len(evaluation.images), context.world_size, context.is_main, name
        )
        outputs = None if evaluation.outputs is None else evaluation.outputs.to(context.device)
        members = [Member(network, build_color_transform(setup.recipe), outputs) for network in networks]
        scoring = build_scoring(setup.recipe.eval, evaluation, setup.precision)
        return evaluate(members, shown, scoring, context)

    def close(self) -> None:
        """End the loader processes."""
        self._loader.close()


def _announced(batches: Iterable[EvalBatch], before_batch: Callable[[], None]) -> Iterator[EvalBatch]:
    for batch in batches:
        before_batch()
        yield batch
