"""What a checkpoint of this tool holds, as types: all of it is checked before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor


class _Part(BaseModel):
    """A part of a checkpoint: no unknown keys, no conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


def _check_dense(tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        raise ValueError("should be a dense tensor of numbers")
    if tensor.is_complex():
        raise ValueError("should hold real numbers")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError("should have memory for each of its elements")  # which optimizers write to
    return tensor


def _check_step(state: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    step = state.get("step")
    if step is not None and not (step.double().isfinite() & (step.double() >= 0)).all():
        raise ValueError("step should be a number of steps")
    return state


_Dense = Annotated[Tensor, AfterValidator(_check_dense)]
_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(gt=0)]
_Seconds = Annotated[float, Field(ge=0)]


class _Counts(_Part):
    count: _Positive
    top1_correct: _Count
    top5_correct: _Count
    top1: float
    top5: float
    loss: float  # may be NaN
    unreadable: _Count


class _Sets(_Counts):
    """Of the validation images, and of each set of eval.also."""

    also: dict[str, _Counts] | None = None


class _Evaluation(_Sets):
    epoch: _Positive


class _Last(_Evaluation):
    ema: _Sets | None = None


class _Best(_Evaluation):
    weights: Literal["model", "ema"] | None = None


class _Progress(_Part):
    step: _Count
    epoch_is_open: bool
    seconds: _Seconds
    epoch_began: _Seconds
    last: _Last | None


class _Totals(_Part):
    loss: float
    correct: _Count
    seen: _Count
    unreadable: _Count


class _Meter(_Part):
    window: _Totals
    epoch: _Totals
    run: _Totals


class _Group(BaseModel):
    """Parameters by their numbers. Settings are the recipe's, whatever the checkpoint says."""

    params: list[_Count]


class _Optimizer(_Part):
    state: dict[int, Annotated[dict[str, _Dense | None], AfterValidator(_check_step)]]
    param_groups: list[_Group]


class _Plateau(_Part):
    best: float
    stale: _Count
    reductions: _Count


class _Scaler(_Part):
    """State of torch.amp.GradScaler."""

    scale: Annotated[float, Field(gt=0)]
    growth_factor: float
    backoff_factor: float
    growth_interval: _Positive
    growth_tracker: Annotated[_Count, Field(alias="_growth_tracker")]


class _Nothing(_Part):
    """The state of a part that has none."""


class _Skipped(_Part):
    total: _Count
    in_a_row: _Count


class _Plan(_Part):
    images: _Positive
    steps_per_epoch: _Positive


class _Checkpointer(_Part):
    best: _Best | None


class _Average(_Part):
    updates: _Dense
    weights: dict[str, _Dense]


class _Images(_Part):
    train: str
    val: str


class _Content(_Part):
    """See checkpoint_file.py for the meaning of the keys."""

    format: str
    model: Annotated[dict[str, _Dense], Field(min_length=1)]
    ema: _Average | None = None
    optimizer: _Optimizer
    scaler: _Scaler | _Nothing
    schedule: _Plateau | _Nothing
    plan: _Plan
    meter: _Meter
    rng: _Dense
    skipped: _Skipped
    progress: _Progress
    checkpointer: _Checkpointer
    recipe: dict[str, Any]
    classes: Annotated[list[str], Field(min_length=1)]
    images: _Images
    version: str

    @model_validator(mode="after")
    def _schedule_of_recipe(self) -> _Content:
        section = self.recipe.get("schedule")
        if isinstance(section, Mapping) and section.get("name") == "plateau" and isinstance(self.schedule, _Nothing):
            raise ValueError("schedule lacks the memory of plateau")
        return self

    @model_validator(mode="after")
    def _average_of_the_model(self) -> _Content:
        if self.ema is not None:
            model, average = ({k: (t.shape, t.dtype) for k, t in w.items()} for w in (self.model, self.ema.weights))
            if model != average:
                raise ValueError("ema is the average of another network's weights")
            if self.ema.updates.shape or self.ema.updates.dtype != torch.int64 or self.ema.updates < 0:
                raise ValueError("ema.updates is no count")
        return self

    @model_validator(mode="after")
    def _open_at_an_end(self) -> _Content:
        step, section = self.progress.step, self.recipe.get("train")
        cut = section.get("max_steps") if isinstance(section, Mapping) else None
        if self.progress.epoch_is_open and step % self.plan.steps_per_epoch and step != cut:
            raise ValueError(f"progress: step {step} is no end of an epoch whose evaluation could be open")
        return self

    @model_validator(mode="after")
    def _rng_of_torch(self) -> _Content:
        own = torch.get_rng_state()
        if self.rng.dtype != own.dtype or self.rng.shape != own.shape:
            raise ValueError("rng is no state of torch's generator")
        return self


_ALTERNATIVES = {part.__name__ for part in (_Plateau, _Scaler, _Nothing)}
"""Where one of several parts may stand, pydantic names in an error's place the one that it tried."""


def problem_in(content: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the content of a checkpoint, key and reason, or None."""
    try:
        _Content.model_validate(content)
    except ValidationError as error:
        first, *others = error.errors(include_input=False, include_url=False)
        key = ".".join(part for part in map(str, first["loc"]) if part not in _ALTERNATIVES and "[" not in part)
        reason = first["msg"].removeprefix("Value error, ")
        more = f", and {len(others)} more" if others else ""
        return f"{key[:120]}: {reason[:1].lower()}{reason[1:120]}{more}" if key else f"{reason[:120]}{more}"
    return None
