"""The recipe: everything that decides what a run computes, typed, validated and frozen.

A recipe is a YAML file of nine sections. Layers are merged from weakest to strongest: the defaults below, the file
named by a recipe's `base:` (one level), the recipe, `section.key=value` overrides. Where a layer changes the variant
of a section (`schedule.name`, `data.source`), the keys that weaker layers gave to that section are dropped: they
belong to another variant. This module never imports torch, so that a mistake in a recipe is refused at once.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo

from resnext_train.errors import InputError

_DURATION = re.compile(r"(\d+(?:\.\d+)?) (epoch|step)s?")


def _check_duration(value: float | str) -> float | str:
    if isinstance(value, str) and not _DURATION.fullmatch(value):
        raise ValueError("a duration is a number of epochs, '5 epochs' or '500 steps'")
    if not isinstance(value, str) and value < 0:
        raise ValueError("a duration cannot be negative")
    return value


Duration = Annotated[
    float | str,
    AfterValidator(_check_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}]}
    ),
]
"""A number of epochs, or "N epochs", or "N steps"."""


def duration_in_steps(duration: float | str, steps_per_epoch: int) -> int:
    """Optimizer steps in `duration`, rounded to the nearest; the only place where durations become steps."""
    if isinstance(duration, str):
        match = _DURATION.fullmatch(duration)
        assert match, duration
        amount = float(match[1])
        return round(amount if match[2] == "step" else amount * steps_per_epoch)
    return round(duration * steps_per_epoch)


class Section(BaseModel):
    """What all sections share: no unknown keys, no silent conversion, no change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Triple = tuple[float, float, float]


class ModelSection(Section):
    """The network."""

    arch: str
    """Name as the papers write it: resnet50, resnext50_32x4d (depth 50, cardinality 32, base width 4), ..."""
    num_classes: Literal["auto"] | Positive = "auto"
    """Outputs of the classifier; auto: as many as the data has classes. A number that disagrees is an error."""
    blocks: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)] | None = None
    """Blocks in each of the four stages, for a depth that has no customary split; null: as `arch` says."""
    cardinality: Positive | None = None
    """Groups of the 3×3 convolution (C); null: as `arch` says."""
    base_width: Positive | None = None
    """Width of one group in the first stage (d); null: as `arch` says."""


class _Data(Section):
    workers: Literal["auto"] | Natural = "auto"
    """Loader processes per training process; auto: the cores this process may use / local processes."""
    mean: Triple = (0.485, 0.456, 0.406)
    """Mean of R, G, B on a scale of 0 to 1, subtracted from every image."""
    std: Triple = (0.229, 0.224, 0.225)
    """Standard deviation of R, G, B on a scale of 0 to 1, divided by after the mean."""


class FolderData(_Data):
    """Images in folders: root/train/CLASS/... and root/val/CLASS/..."""

    source: Literal["folder"] = "folder"
    """Where the images come from."""
    root: str | None = None
    """Folder that holds train/ and val/, each with one folder per class."""


class SyntheticData(_Data):
    """Procedural images that need no files: coloured gratings, one colour and frequency per class; learnable."""

    source: Literal["synthetic"]
    """Where the images come from."""
    classes: Annotated[int, Field(ge=2)] = 10
    """Number of classes."""
    train_images: Positive = 2000
    """Images in the training split."""
    val_images: Positive = 500
    """Images in the validation split."""
    size: Positive = 256
    """Height and width of an image in pixels."""


DataSection = Annotated[FolderData | SyntheticData, Field(discriminator="source")]


class AugmentSection(Section):
    """Training augmentation, by default that of the ResNeXt paper's code: crop, flip, colour jitter, lighting."""

    size: Positive = 224
    """Height and width of a training crop in pixels."""
    area: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's area as a share of the image's."""
    aspect: tuple[float, float] = (0.75, 4 / 3)
    """Range of the crop's aspect ratio, drawn uniformly; width and height are then swapped with probability 0.5."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling of the crop to `size`, antialiased."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    brightness: Fraction = 0.4
    """Brightness is multiplied by 1 + U(-b, b); jitters come in random order and are never clamped."""
    contrast: Fraction = 0.4
    """Contrast about the mean gray of the current image is multiplied by 1 + U(-c, c)."""
    saturation: Fraction = 0.4
    """Saturation about each pixel's gray is multiplied by 1 + U(-s, s)."""
    lighting: NonNegative = 0.1
    """Standard deviation of the noise along the principal components of ImageNet's colours (AlexNet's lighting)."""

    @model_validator(mode="after")
    def _ranges(self) -> AugmentSection:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError("augment.area must be [low, high] with 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError("augment.aspect must be [low, high] with 0 < low <= high")
        return self


class OptimizerSection(Section):
    """SGD as in the papers."""

    name: Literal["sgd"] = "sgd"
    """Optimizer."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate for the global batch of `train.batch_size`; it is never rescaled."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum, without dampening."""
    nesterov: bool = True
    """Nesterov momentum, as in the papers' code."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty."""
    decay_1d: bool = True
    """Decay vectors (BN scale and shift, biases) too, as the papers' code does; false: matrices and kernels only."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> OptimizerSection:
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov needs optimizer.momentum above 0; set optimizer.nesterov to false")
        return self


class _Schedule(Section):
    warmup: Duration = 0.0
    """Linear rise of the learning rate at the start; 0: none, as in the papers."""


class StepSchedule(_Schedule):
    """The learning rate is multiplied by `factor` at each milestone."""

    name: Literal["step"] = "step"
    """Kind of schedule."""
    milestones: tuple[Duration, ...] = (30.0, 60.0, 90.0)
    """When to multiply: after that many epochs (or steps)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What to multiply by."""


class CosineSchedule(_Schedule):
    """Half a cosine from the learning rate to `final` over what follows the warmup."""

    name: Literal["cosine"]
    """Kind of schedule."""
    final: NonNegative = 0.0
    """Learning rate at the end."""


class PlateauSchedule(_Schedule):
    """Multiplied by `factor` when the validation top-1 error stops falling (the ResNet paper's rule)."""

    name: Literal["plateau"]
    """Kind of schedule."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What to multiply by."""
    patience: Natural = 5
    """Evaluations without improvement that are tolerated; the next one without reduces the learning rate."""
    threshold: NonNegative = 0.1
    """Fall of the top-1 error, in percentage points below the best, that counts as improvement."""
    minimum: NonNegative = 1e-6
    """The learning rate never falls below this."""


ScheduleSection = Annotated[
    StepSchedule | CosineSchedule | PlateauSchedule,
    Field(discriminator="name"),
]


class TrainSection(Section):
    """Length, batch and precision of training."""

    epochs: Positive = 90
    """Passes over the training split."""
    max_steps: Positive | None = None
    """Stop after this many steps even if `epochs` are not over; null: no such limit."""
    batch_size: Positive = 256
    """Images in one step over all processes: the global batch."""
    micro_batch: Positive = 32
    """Images in one BN group. A step always consists of batch_size / micro_batch groups, dealt to the processes."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread evenly over all classes; never used in evaluation."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: on CUDA bf16, else fp16 with loss scaling; on a CPU with bf16 instructions bf16; else fp32."""
    compile: bool = False
    """Compile the network with torch.compile."""
    seed: Natural = 0
    """Seed of the initial weights, of the order of images and of their augmentation."""

    @model_validator(mode="after")
    def _groups(self) -> TrainSection:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be a multiple of train.micro_batch ({self.micro_batch})"
            )
        if self.micro_batch < 2:
            raise ValueError("train.micro_batch must be at least 2: BN needs two images to a group")
        return self

    @property
    def groups(self) -> int:
        """BN groups in one step."""
        return self.batch_size // self.micro_batch


class EvalSection(Section):
    """Single-crop evaluation: short side to `resize`, centre crop of `crop`."""

    every_epochs: Positive = 1
    """Evaluate after every so many epochs, and at the end."""
    resize: Positive = 256
    """The short side is resized to this many pixels, antialiased."""
    crop: Positive = 224
    """Height and width of the centre crop in pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling of the resize."""
    batch_size: Positive = 64
    """Images in one forward pass on one process; does not change the result."""

    @model_validator(mode="after")
    def _crop_fits(self) -> EvalSection:
        if self.crop > self.resize:
            raise ValueError(f"eval.crop ({self.crop}) cannot exceed eval.resize ({self.resize})")
        return self

    @property
    def protocol(self) -> str:
        """The evaluation in one line, as stored beside every result."""
        return f"short side {self.resize} {self.interpolation} antialiased, centre crop {self.crop}, 1 view"


class CheckpointSection(Section):
    """When checkpoints are written. last.pt is always the newest and best.pt the one with the best top-1."""

    every_epochs: Positive = 1
    """Write last.pt after every so many epochs, and at the end."""
    every_steps: Positive | None = None
    """Write last.pt after every so many steps as well; null: only at epochs."""
    keep: Natural = 0
    """How many of the newest epoch checkpoints to keep as epoch_NNNN.pt beside last.pt and best.pt."""


class LogSection(Section):
    """Logging."""

    every: Positive = 20
    """Steps between two lines of the log; the only time the host waits for the device."""
    tensorboard: bool = True
    """Write TensorBoard files as well as log.jsonl."""


class Recipe(Section):
    """A training run: nine sections."""

    model: ModelSection
    """The network."""
    data: DataSection = FolderData()
    """The images."""
    augment: AugmentSection = AugmentSection()
    """Training augmentation."""
    optimizer: OptimizerSection = OptimizerSection()
    """Optimizer."""
    schedule: ScheduleSection = StepSchedule()
    """Learning rate over time."""
    train: TrainSection = TrainSection()
    """Length, batch and precision of training."""
    eval: EvalSection = EvalSection()
    """Evaluation."""
    checkpoint: CheckpointSection = CheckpointSection()
    """When checkpoints are written."""
    log: LogSection = LogSection()
    """Logging."""

    def to_dict(self) -> dict[str, Any]:
        """All sections and keys as plain types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """All sections and keys as YAML that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110)


# ---------------------------------------------------------------------------------------------------------------------
# Finding and loading


def shipped_recipes() -> Path:
    """The folder of the recipes that come with the package: inside a wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def find_recipe(name: str) -> Path:
    """The file that `--config NAME` means.

    In this order: a path that exists; DATASET/NAME.yaml among the shipped recipes; NAME.yaml for ImageNet; NAME.yaml
    in any other data set's folder, if only one has it. The ending .yaml may be left out.

    Raises:
        InputError: no such recipe, or one that is a folder or ambiguous; the nearest names are given.
    """
    path, shipped = Path(name), shipped_recipes()
    if path.is_file():
        return path
    file = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    for candidate in (shipped / file, shipped / "imagenet" / file):
        if candidate.is_file():
            return candidate
    known = sorted(str(p.relative_to(shipped)) for p in shipped.rglob("*.yaml") if not p.name.startswith("_"))
    matches = [k for k in known if k.endswith("/" + file)]
    if len(matches) == 1:
        return shipped / matches[0]
    if matches:
        raise InputError(f"recipe {name} is ambiguous: give one of {', '.join(matches)}")
    near = difflib.get_close_matches(file, known + [k.rsplit("/", 1)[-1] for k in known], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"shipped recipes: {', '.join(known)}"
    raise InputError(f"recipe {name} not found, neither as a path nor among the shipped recipes; {hint}")


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Find, merge, validate and freeze the recipe `name` with `section.key=value` overrides.

    Raises:
        InputError: a missing file, bad YAML, an unknown key, a wrong type or value; with file, key and nearest name.
    """
    layers = [*_file_layers(find_recipe(name)), *_override_layers(overrides)]
    return _validated(layers)


def recipe_from_dict(data: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe stored as plain types in a checkpoint or a run folder; `where` names the place in errors."""
    return _validated([(where, dict(data)), *_override_layers(overrides)])


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with the old and the new value (None where a key is absent)."""
    before, after = dict(_flatten(old.to_dict())), dict(_flatten(new.to_dict()))
    return {
        key: (before.get(key), after.get(key))
        for key in [*before, *(k for k in after if k not in before)]
        if before.get(key) != after.get(key)
    }


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file, for editors: `base` besides the sections, and no section required."""
    schema = Recipe.model_json_schema()
    base = {"type": "string", "description": "Recipe beside this one whose values hold where this one is silent."}
    schema["properties"] = {"base": base, **schema["properties"]}
    schema.pop("required", None)
    for definition in schema["$defs"].values():
        definition.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


Layer = tuple[str, dict[str, Any]]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader: runs no code
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a recipe is a mapping of sections such as 'model:' and 'train:'")
    return data


def _file_layers(path: Path) -> list[Layer]:
    data = _read_yaml(path)
    if "base" not in data:
        return [(str(path), data)]
    base = path.parent / str(data.pop("base"))
    if not base.is_file():
        raise InputError(f"{path}: base: {base} not found; it is looked for beside the recipe")
    below = _read_yaml(base)
    if "base" in below:
        raise InputError(f"{base}: has a base: of its own, but {path} builds on it; only one level is allowed")
    return [(str(base), below), (str(path), data)]


def _override_layers(overrides: Sequence[str]) -> list[Layer]:
    layers = []
    for text in overrides:
        key, equals, value = text.partition("=")
        section, dot, name = key.partition(".")
        where = f"override {text!r}"
        if not (equals and dot and name):
            raise InputError(f"{where}: overrides are written section.key=value, such as train.epochs=10")
        fields = [f for k, f in _KEYS if k == key]
        if not fields:
            raise InputError(f"{where}: {_unknown(key)}")
        is_tag = name == _VARIANT_KEYS.get(section)
        layers.append((where, {section: {name: value if is_tag else _typed(value, fields, where, key)}}))
    return layers


def _typed(text: str, fields: list[FieldInfo], where: str, key: str) -> Any:
    """`text` as YAML if a field of that name takes it, else as the plain string if one takes that."""
    try:
        parsed = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError):
        parsed = text
    error: ValidationError | None = None
    for value in (parsed, text):
        for field in fields:
            annotation = Annotated[field.annotation, field]  # type: ignore[name-defined]
            try:
                TypeAdapter(annotation).validate_json(_as_json(value), strict=True)
            except ValidationError as e:
                error = error or e
            else:
                return value
    assert error is not None
    raise InputError(f"{where}: {key}: {_reason(error.errors()[0])}")


def _validated(layers: list[Layer]) -> Recipe:
    merged: dict[str, Any] = {}
    for _, layer in layers:
        _merge(merged, layer)
    for section, tag in _VARIANT_KEYS.items():
        if isinstance(merged.setdefault(section, {}), dict):
            merged[section].setdefault(tag, _VARIANT_DEFAULTS[section])
    try:
        # Through JSON: strict mode then takes a list for a tuple, yet still refuses "90" for a number.
        return Recipe.model_validate_json(_as_json(merged), strict=True)
    except ValidationError as error:
        problems = error.errors()
    problems.sort(key=lambda p: p["type"] != "extra_forbidden")
    path = _path_in(merged, problems[0])
    where = next((w for w, layer in reversed(layers) if _has(layer, path)), layers[-1][0])
    more = len({_path_in(merged, p) for p in problems}) - 1
    message = _problem(path, problems[0])
    raise InputError(f"{where}: {message}" + (f" (and {more} more)" if more else ""))


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for section, values in layer.items():
        if not isinstance(values, dict) or not isinstance(into.get(section), dict):
            into[section] = dict(values) if isinstance(values, dict) else values
            continue
        tag = _VARIANT_KEYS.get(section)
        if tag and tag in values and values[tag] != into[section].get(tag, _VARIANT_DEFAULTS[section]):
            into[section] = {}
        into[section].update(values)


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str, skipkeys=True)


def _path_in(data: Any, problem: Mapping[str, Any]) -> tuple[str, ...]:
    """Where in the recipe a pydantic error is: its location without the names of union members."""
    path: list[str] = []
    for i, part in enumerate(problem["loc"]):
        last = i == len(problem["loc"]) - 1
        if isinstance(data, dict) and (part in data or (last and problem["type"] == "missing")):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        path.append(str(part))
    return tuple(path)


def _has(data: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return isinstance(data, list)
        data = data[part]
    return bool(path)


def _problem(path: tuple[str, ...], problem: Mapping[str, Any]) -> str:
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return _unknown(key)
    return f"{key}: {_reason(problem)}" if key else _reason(problem)


def _unknown(key: str) -> str:
    known = [k for k, _ in _KEYS] + list(Recipe.model_fields)
    if key in known:
        section = key.partition(".")[0]
        return f"{key} does not belong to the chosen {section}.{_VARIANT_KEYS[section]}; remove it or change that"
    leaf = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or [k for k in known if k.endswith("." + leaf)]
    hint = f"did you mean {near[0]}?" if near else f"sections are {', '.join(Recipe.model_fields)}"
    return f"unknown key {key}; {hint}"


def _reason(problem: Mapping[str, Any]) -> str:
    """One clause for a pydantic error, with the offending value."""
    if problem["type"] == "missing":
        few = isinstance(problem["loc"][-1], int)
        return "has too few values" if few else "is missing; state it in the recipe"
    if problem["type"] == "union_tag_invalid":
        return f"should be {problem['ctx']['expected_tags']}, not {problem['ctx']['tag']!r}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = problem.get("input")
    if problem["type"] == "value_error" and isinstance(given, dict):
        return message  # a check over several keys names them itself
    return f"{message}, not {given!r}"


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _variants(field: FieldInfo) -> list[type[Section]]:
    """The section classes that a field of Recipe may hold."""
    annotation = field.annotation
    members = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
    return [m for m in members if isinstance(m, type) and issubclass(m, Section)]


_KEYS: list[tuple[str, FieldInfo]] = [
    (f"{section}.{name}", inner)
    for section, field in Recipe.model_fields.items()
    for variant in _variants(field)
    for name, inner in variant.model_fields.items()
]
_VARIANT_KEYS: dict[str, str] = {
    section: str(field.discriminator) for section, field in Recipe.model_fields.items() if field.discriminator
}
_VARIANT_DEFAULTS: dict[str, str] = {
    section: getattr(Recipe.model_fields[section].default, key) for section, key in _VARIANT_KEYS.items()
}
