"""Recipe sections about training: length, batch and precision; the average of its weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from resnext_train.config.fidelity.references import check_reference
from resnext_train.config.value_types import BatchSize, Duration, Minutes, Natural, Positive, Section, Seed


def _compile_mode(value: Any) -> Any:
    """Return the mode that a boolean means: recipes had these, and YAML reads `off` as one."""
    return {True: "default", False: "off"}[value] if isinstance(value, bool) else value


CompileMode = Annotated[
    Literal["off", "default", "reduce-overhead", "max-autotune"],
    BeforeValidator(_compile_mode),
    WithJsonSchema({"enum": ["off", "default", "reduce-overhead", "max-autotune", False, True]}),
]
"""How torch.compile compiles; reduce-overhead and max-autotune record CUDA graphs."""


class TrainSection(Section):
    """Length, batch and precision of training."""

    epochs: Annotated[int, Field(gt=0, le=1_000_000)] = 90
    """Passes over the training split."""
    max_steps: Positive | None = None
    """Steps after which the run, and a cosine schedule, ends even before `epochs`; null: no limit."""
    batch_size: BatchSize = 256
    """Images per step over all processes (the global batch)."""
    micro_batch: BatchSize = 32
    """Images per forward pass, which share BatchNorm statistics. A step always has batch_size / micro_batch of these
    micro-batches, on any number of processes."""
    last_batch: Literal["auto", "keep", "drop"] = "auto"
    """The partial batch at an epoch's end. auto: a step where it is at least half a batch, else dropped; keep: a step;
    drop: dropped. With fewer than two images per micro-batch it is always dropped, and where an epoch has no other
    step, never."""
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    """Loss. cross_entropy: softmax over the classes. bce: binary cross-entropy of each class by itself, averaged over
    the classes (arXiv 2110.00476). Evaluation reports cross-entropy in either case."""
    bce_threshold: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of loss=bce: a class is a target of 1 where its part in a mixed image is above this, and of 0 elsewhere, so that
    both classes may be 1 (timm's --bce-target-thresh). null: the target is the part."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target spread evenly over all classes; not used in evaluation."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format. auto: bf16 where the device supports it, else fp16 with loss scaling on GPUs and fp32 on CPUs."""
    compile: CompileMode = "off"
    """Compile the network for training by torch.compile in this mode, once for each size of a micro-batch; true is
    default, false is off. Evaluation is never compiled."""
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Memory layout of images and network. auto: channels_last, which was the faster one on CPUs; on some GPUs groups
    of 16 and more channels may be faster contiguous: `resnext bench step` measures both."""
    checkpoint_activations: bool = False
    """Keep only the inputs of the network's blocks for the backward pass, and compute the rest again there: a third
    more computing, the same result, and much less memory. Networks of torchvision and timm take none."""
    deterministic: bool = False
    """Take only algorithms that give the same bits each time, so that a run resumes exactly on a GPU as well; slower.
    A network with an operation that has none ends the run."""
    bucket_mb: Annotated[float, Field(gt=0, le=100_000)] = 25.0
    """MiB of gradients that several processes sum at once, while the backward pass goes on. With 25, the first that are
    ready are sent alone, after 1 MiB."""
    comm: Literal["fp32", "bf16"] = "fp32"
    """Number format in which several processes sum gradients. bf16 halves what is sent and deviates from the papers:
    each gradient is rounded to 8 bits before the sum."""
    max_skipped: Natural = 20
    """Steps in a row with a non-finite loss or gradient that are skipped; one more ends the run."""
    patience: Minutes = 10.0
    """Minutes that processes wait for another one before they end the run."""
    seed: Seed = 0
    """Seed of the initial weights, the order of images and their augmentation."""
    reference: Annotated[str | None, AfterValidator(check_reference)] = None
    """The paper or code that this recipe is compared with, such as resnext_torch or rsb/a2: `resnext info --config`
    and `--dry-run` list where it departs from that. Changes nothing of the training. null: none."""

    @model_validator(mode="after")
    def _micro_batches(self) -> TrainSection:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be a multiple of train.micro_batch ({self.micro_batch})"
            )
        if self.micro_batch < 2:
            raise ValueError("train.micro_batch must be at least 2: BatchNorm needs two images")
        return self

    @model_validator(mode="after")
    def _threshold_is_of_bce(self) -> TrainSection:
        if self.bce_threshold is not None and self.loss != "bce":
            raise ValueError("train.bce_threshold needs train.loss=bce; set it to null, or choose that loss")
        return self

    @model_validator(mode="after")
    def _deterministic_is_not_timed(self) -> TrainSection:
        if self.deterministic and self.compile == "max-autotune":
            raise ValueError(
                "train.deterministic does not go with train.compile=max-autotune, which chooses by the clock; "
                "use default or reduce-overhead"
            )
        return self

    @model_validator(mode="after")
    def _buckets_of_compiled_networks(self) -> TrainSection:
        if self.compile != "off" and self.bucket_mb < 1:  # which torch's DDPOptimizer asserts
            raise ValueError(
                f"train.bucket_mb ({self.bucket_mb:g}) must be at least 1 with train.compile={self.compile}; "
                "raise it, or set train.compile to off"
            )
        return self

    @property
    def patience_seconds(self) -> float:
        """`patience` in seconds."""
        return 60 * self.patience

    @property
    def micro_batches(self) -> int:
        """Micro-batches per step."""
        return self.batch_size // self.micro_batch


class EmaSection(Section):
    """An exponential moving average of the weights and of BatchNorm's running statistics, evaluated beside them."""

    decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What remains of the average at an update: average = decay · average + (1 - decay) · weights. null: no average.
    torchvision's references state another number, from which they compute this one: --model-ema-decay D and
    --model-ema-steps S mean every = S and decay = 1 - min(1, (1 - D) · S · (batch of all GPUs) / epochs). Those of its
    ResNet-50 (D = 0.99998, S = 32, 8 GPUs of 128, 600 epochs) mean 0.99891."""
    every: Positive = 1
    """Steps between updates: with 32 there is one after the 32nd step, the 64th and so on."""
    warmup: Duration = 0.0
    """Epochs (or steps) in which updates copy the weights; so does the first update after these."""
