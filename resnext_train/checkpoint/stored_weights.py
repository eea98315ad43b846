"""Which weights of a checkpoint are meant: the network's own, or the average that its run kept. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from resnext_train.errors import InputError

Kind = Literal["model", "ema"]
"""The network's own weights, or their exponential moving average."""

CHOICES = ("auto", "model", "ema")
"""Values of --weights."""

KINDS: dict[Kind, str] = {"model": "model: the network's own", "ema": "ema: the average over the run"}
"""What they are, for people."""


def better_weights(evaluation: Mapping[str, Any]) -> Kind | None:
    """Return the weights with more correct top-1 predictions, the network's own of equal ones; None: no average."""
    if (ema := evaluation.get("ema")) is None:
        return None
    return "ema" if ema["top1_correct"] > evaluation["top1_correct"] else "model"


def result_of(evaluation: Mapping[str, Any], kind: Kind) -> dict[str, Any] | None:
    """Return the part of an evaluation that is of these weights; None: they were not evaluated."""
    if kind == "model":
        return {key: value for key, value in evaluation.items() if key != "ema"}
    return {"epoch": evaluation["epoch"], **evaluation["ema"]} if "ema" in evaluation else None


def best_of(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return an evaluation as it counts for the best: that of the better weights, and where there are two, which."""
    kind = better_weights(evaluation)
    if kind is None:
        return evaluation
    return {**(result_of(evaluation, kind) or {}), "weights": kind}


class StoredWeights(NamedTuple):
    """Weights of a checkpoint."""

    weights: dict[str, Any]
    kind: Kind | None
    """None: there is no average, and so no choice."""
    result: dict[str, Any] | None
    """Their evaluation, if there was one after the checkpoint's last step."""


def stored_weights(content: Mapping[str, Any], asked: str, path: Path) -> StoredWeights:
    """Return the weights that are `asked` for, one of CHOICES, of a checkpoint of this tool.

    auto: those that were better in the evaluation after the checkpoint's last step, which of best.pt made it the best;
    where there was none, the average, if it has had an update after its warm-up.

    Raises:
        InputError: there is no average.
    """
    evaluation = _evaluation(content)
    if content.get("ema") is None:
        check_choice(asked, ("model",), path)
        return StoredWeights(content["model"], None, evaluation and result_of(evaluation, "model"))
    check_choice(asked, ("model", "ema"), path)
    kind: Kind = "model" if asked == "model" else "ema"
    if asked == "auto" and evaluation is not None:
        kind = better_weights(evaluation) or "model"  # the run has begun to average since
    elif asked == "auto" and not content["ema"]["updates"]:
        kind = "model"  # until then the average is the first weights, or a copy of earlier ones
    weights = content["model"] if kind == "model" else content["ema"]["weights"]
    return StoredWeights(weights, kind, evaluation and result_of(evaluation, kind))


def check_choice(asked: str, held: Collection[str] | None, path: Path) -> None:
    """Refuse to take weights from a file that does not hold them; `held` is None for a foreign file.

    Raises:
        InputError: refused, or there is no such choice.
    """
    if asked not in CHOICES:
        raise InputError(f"--weights {asked}: must be one of {', '.join(CHOICES)}")
    if held is None:
        if asked == "ema":
            raise InputError(f"--weights ema is for files of resnext-train, and {path} is none; leave out --weights")
    elif asked != "auto" and asked not in held:
        held_text = "no average of the weights, which only runs with ema.decay keep"
        if asked == "model":
            held_text = "only the average of the weights, of which it was exported"
        raise InputError(f"--weights {asked}: {path} holds {held_text}; leave out --weights")


def _evaluation(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the last evaluation of a checkpoint's run, if no step was taken since."""
    progress, per_epoch = content["progress"], content["plan"]["steps_per_epoch"]
    last, step = progress["last"], progress["step"]
    section = content["recipe"].get("train")
    ends = step % per_epoch == 0 or (isinstance(section, Mapping) and step == section.get("max_steps"))
    if last is None or progress["epoch_is_open"] or not ends or last["epoch"] != -(-step // per_epoch):
        return None
    return dict(last)
