from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from resnext_train.config import (
    AreaAugment,
    AutoAugmentSection,
    CosineSchedule,
    EvalSection,
    FolderData,
    NoAutoAugment,
    RandAugment,
    RmspropSection,
    SgdSection,
    StepSchedule,
    SyntheticData,
    TrivialAugmentWide,
    all_keys,
    differences,
    duration_in_steps,
    find_recipe,
    foreign_names,
    load_recipe,
    load_recipe_with_notes,
    recipe_from_dict,
    recipe_schema,
    run_name,
    shipped_recipes,
)
from resnext_train.config.yaml_reader import read_yaml
from resnext_train.errors import InputError


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def recipe_file(tmp_path: Path) -> str:
    return write(tmp_path / "r.yaml", "model: {arch: resnet18}\ntrain: {epochs: 5}\n")


def test_defaults_are_the_papers() -> None:
    """FACTS of the ResNeXt paper's code: arXiv 1611.05431, section 4, and fb.resnet.torch."""
    r = load_recipe("resnext50_32x4d.yaml")
    assert isinstance(r.optimizer, SgdSection)
    assert isinstance(r.augment, AreaAugment)
    assert (r.optimizer.lr, r.optimizer.momentum, r.optimizer.nesterov, r.optimizer.weight_decay) == (
        0.1,
        0.9,
        True,
        1e-4,
    )
    assert (r.train.batch_size, r.train.micro_batch, r.train.epochs) == (256, 32, 100)
    assert isinstance(r.schedule, StepSchedule)
    assert (r.schedule.milestones, r.schedule.factor) == ((30, 60, 90), 0.1)
    assert (r.augment.area, r.augment.aspect) == ((0.08, 1.0), (0.75, 4 / 3))
    assert (r.eval.resize, r.eval.crop) == (256, 224)


def test_a_recipe_written_out_reads_back_equal(recipe_file: str, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file, ["schedule.warmup=500 steps", "data.root=/x y", "data.mean=[0.1, 0.2, 0.3]"])
    again = load_recipe(write(tmp_path / "out.yaml", recipe.to_yaml()))
    assert again == recipe
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict())), "json") == recipe


def test_layers_base_then_recipe_then_overrides(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "model: {arch: resnet18}\ntrain: {epochs: 1, seed: 1, batch_size: 64}\n")
    path = write(tmp_path / "r.yaml", "base: base.yaml\ntrain: {seed: 2, epochs: 2}\n")
    train = load_recipe(path, ["train.epochs=3"]).train
    assert (train.epochs, train.seed, train.batch_size) == (3, 2, 64)


def test_a_shipped_file_is_a_base_too(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", "base: imagenet/_paper.yaml\nmodel: {arch: resnet18}\naugment: {lighting: 0.0}\n")
    augment = load_recipe(path).augment
    assert (augment.lighting, augment.contrast) == (0.0, 0.4)


def test_a_changed_variant_drops_the_keys_of_the_other(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", "model: {arch: resnet18}\nschedule: {name: step, milestones: [3]}\n")
    assert load_recipe(path, ["schedule.final=0.5", "schedule.name=cosine"]).schedule == CosineSchedule(
        name="cosine", final=0.5
    )
    assert isinstance(load_recipe(path, ["data.source=synthetic", "data.size=8"]).data, SyntheticData)


def test_a_changed_variant_keeps_what_both_have_in_any_order(recipe_file: str) -> None:
    for overrides in (["schedule.warmup=5", "schedule.name=cosine"], ["schedule.name=cosine", "schedule.warmup=5"]):
        assert load_recipe(recipe_file, overrides).schedule == CosineSchedule(name="cosine", warmup=5)
    data = load_recipe(recipe_file, ["data.mean=[0.1, 0.2, 0.3]", "data.source=synthetic"]).data
    assert data.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    "wanted", [RandAugment(name="randaugment"), TrivialAugmentWide(name="trivial_augment_wide"), NoAutoAugment()]
)
def test_a_changed_variant_drops_values_that_mean_something_else_there(wanted: AutoAugmentSection) -> None:
    """A magnitude of 7.0 is of 10 in timm and of 30 in torchvision, which has no random interpolation either."""
    assert load_recipe("rsb/resnet50_a1", [f"auto_augment.name={wanted.name}"]).auto_augment == wanted


@pytest.mark.parametrize(
    ("config", "override", "pair"),
    [
        ("nvidia/resnet50_90", "optimizer.lr=0.1", (0.1, None)),
        ("smoke", "optimizer.lr_per_256=0.1", (None, 0.1)),
        ("rsb/resnet50_a3", "eval.resize=300", (300, None)),
        ("resnet18", "eval.crop_ratio=0.9", (None, 0.9)),
        ("resnet18", "optimizer.name=lamb", (0.1, None)),
    ],
)
def test_one_of_two_keys_that_exclude_each_other_takes_the_place_of_the_other(
    config: str, override: str, pair: tuple[float | None, float | None]
) -> None:
    recipe = load_recipe(config, [override])
    r = recipe.eval if override.startswith("eval") else recipe.optimizer
    assert pair == ((r.resize, r.crop_ratio) if isinstance(r, EvalSection) else (r.lr, r.lr_per_256))
    assert recipe_from_dict(recipe.to_dict(), "stored") == recipe


def test_keys_that_exclude_each_other_are_not_both_set_in_one_place(tmp_path: Path) -> None:
    both = write(tmp_path / "r.yaml", "model: {arch: resnet18}\noptimizer:\n  lr: 0.1\n  lr_per_256: 0.1\n")
    with pytest.raises(InputError, match=r"^.*line [34]: optimizer\.lr and .* are both set"):
        load_recipe(both)
    with pytest.raises(InputError, match=r"^override .* are both set"):
        load_recipe("smoke", ["optimizer.lr_per_256=0.2", "optimizer.lr=0.1"])
    with pytest.raises(InputError, match=r"^override .* are both null"):
        load_recipe("smoke", ["optimizer.lr=null"])


@pytest.mark.parametrize(
    "points", ["[[2, 1], [2 epochs, 0]]", "[[5, 1], [10 steps, 1], [3, 0]]", "[[9 steps, 1], [8 steps, 0]]"]
)
def test_points_of_one_unit_ascend(points: str) -> None:
    with pytest.raises(InputError, match=r"schedule\.points: .* put them in ascending order"):
        load_recipe("smoke", ["schedule.name=linear", f"schedule.points={points}"])


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.weight_decay=1e-4", 1e-4),
        ("optimizer.weight_decay=0", 0.0),
        ("data.root=123", "123"),
        ("data.root=null", None),
        ("data.root=/a #1/b: [c]", "/a #1/b: [c]"),
        ("data.workers=auto", "auto"),
        ("data.workers=3", 3),
        ("model.blocks=[1,1,1,5]", (1, 1, 1, 5)),
        ("optimizer.nesterov=false", False),
        ("train.compile=off", "off"),
        ("train.compile=false", "off"),
        ("train.compile=true", "default"),
        ("train.compile=reduce-overhead", "reduce-overhead"),
        ("train.bucket_mb=50", 50.0),
    ],
)
def test_overrides_take_the_type_of_their_field(recipe_file: str, override: str, value: object) -> None:
    section, _, name = override.partition("=")[0].partition(".")
    assert getattr(getattr(load_recipe(recipe_file, [override]), section), name) == value


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epoch=5", ("train.epoch;", "train.epochs?")),
        ("optimiser.lr=5", ("optimiser.lr;", "optimizer.lr?")),
        ("train.epochs=five", ("train.epochs: ", "integer")),
        ("train.epochs=0", ("train.epochs: ", "than 0")),
        ("train.epochs=1.5", ("train.epochs: ", "integer")),
        ("train.epochs=true", ("train.epochs: ", "integer")),
        ("optimizer.lr=.inf", ("optimizer.lr: ", "less than")),
        ("optimizer.lr=nan", ("optimizer.lr: ",)),
        ("data.std=[0, 0.2, 0.2]", ("data.std", "than 0")),
        ("train.precision=fp8", ("train.precision: ", "'auto', 'fp32', 'bf16' or 'fp16'")),
        ("train.compile=fast", ("train.compile: ", "'off', 'default', 'reduce-overhead' or 'max-autotune'")),
        ("train.compile=1", ("train.compile: ",)),
        ("train.layout=nhwc", ("train.layout: ", "'auto', 'channels_last' or 'contiguous'")),
        ("train.bucket_mb=0", ("train.bucket_mb: ", "than 0")),
        ("train.comm=fp16", ("train.comm: ", "'fp32' or 'bf16'")),
        ("schedule.name=poly", ("schedule.name: ", "'step', 'cosine', 'plateau'")),
        ("schedule.patience=3", ("schedule.patience ", "schedule.name")),
        ("schedule.milestones=[3 minutes]", ("schedule.milestones", "'500 steps'")),
        ("train.batch_size=37", ("train.batch_size (37) ", " 36 ", " 38,", "train.micro_batch")),
        ("train.batch_size=7", (" 16 ", " 17,", "train.micro_batch")),
        ("train.micro_batch=1", ("train.micro_batch ", " 2: ")),
        ("eval.crop=300", ("eval.crop (300) ", "eval.resize (256)")),
        ("augment.area=[0.5]", ("augment.area: ", "few")),
        ("augment.area=[0.9, 0.1]", ("augment.area: ", "low <= high")),
        ("epochs=3", ("section.key=value",)),
        ("train.epochs", ("section.key=value",)),
        ("model.blocks=[1, 2]", ("model.blocks: ",)),
        ("optimizer.momentum=0", ("optimizer.nesterov ", "optimizer.momentum ")),
    ],
)
def test_a_bad_override_is_refused_with_its_key_and_a_hint(
    recipe_file: str, override: str, told: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(recipe_file, [override])
    where, _, error = str(caught.value).partition(f"{override}': ")
    assert where == "override '"
    assert all(fact in error for fact in told), error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: {archh: resnet18, arch: resnet18}", ("model.archh;", "model.arch?")),
        ("train: {epochs: 5}", ("model: ", "missing")),
        ('model: {arch: resnet18}\ntrain: {epochs: "5"}', ("train.epochs: ", "integer", "'5'")),
        ("model: resnet18", ("model: ", "section", "'resnet18'")),
        ("- model", ("mapping",)),
        ("model: {arch: [}", ("YAML",)),
        ("model: {arch: resnet18}\nmodel: {arch: resnet34}", ("line 2: ", "'model'", "twice")),
        ("model:\n  arch: resnet18\n bad: 1\n", ("line 3: ",)),
        ("model: {arch: !!python/object/apply:os.system [ls]}", ("YAML", "os.system")),
        ("base: none.yaml", ("base: none.yaml ",)),
        (
            "model: {arch: resnet18}\nschedule: {name: cosine, milestones: [1]}",
            ("schedule.milestones ", "schedule.name"),
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_key(tmp_path: Path, text: str, told: tuple[str, ...]) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    before, _, error = str(caught.value).partition(path)
    assert before == ""
    assert all(fact in error for fact in told), error


def mistakes(path: str, overrides: list[str]) -> list[str]:
    """The lines that a recipe of several mistakes is refused with, but the first, which says how many there are."""
    with pytest.raises(InputError) as caught:
        load_recipe(path, overrides)
    first, *lines = str(caught.value).split("\n  ")
    assert f" {len(lines)} mistakes" in first
    return lines


def test_all_mistakes_are_listed_with_file_line_and_key_the_users_own_first(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "# a base\ntrain:\n  epohcs: 3\n  seed: -1\nmodel: {arch: resnet18}\n")
    own = write(
        tmp_path / "r.yaml",
        "base: base.yaml\naugment:\n  flip: 1.0\n  colour: 1\n\nschedule:\n  warmup: 5 min\n  milestones: [30, x]\n",
    )
    expected = [
        ("override 'log.evry=3': ", "log.every?"),
        ("override 'train.epochs=x': ", "train.epochs: "),
        (f"{own}, line 4: ", "augment.colour;"),
        (f"{own}, line 7: ", "schedule.warmup: "),
        (f"{own}, line 8: ", "schedule.milestones: "),
        (f"{base}, line 3: ", "train.epochs?"),
        (f"{base}, line 4: ", "train.seed: "),
    ]
    lines = mistakes(own, ["log.evry=3", "train.epochs=x"])
    assert len(lines) == len(expected)
    for line, (place, fact) in zip(lines, expected, strict=True):
        assert line.startswith(place)
        assert fact in line


def test_mistakes_that_other_choices_would_hide_are_listed_too(tmp_path: Path) -> None:
    """Keys of a section whose variant is none, or another one by an override; the override that wins is blamed."""
    path = write(tmp_path / "r.yaml", "model: {arch: resnet18}\naugment:\n  crop: foo\n  brightnes: 1\n")
    lines = mistakes(path, [])
    assert [line.split(": ")[0] for line in lines] == [f"{path}, line 3", f"{path}, line 4"]
    with pytest.raises(InputError, match=rf"^{path}, line 4: .*augment\.brightnes;"):
        load_recipe(path, ["augment.crop=pad"])
    with pytest.raises(InputError, match=r"^override 'train\.batch_size=37': "):
        load_recipe("smoke", ["train.batch_size=64", "train.batch_size=37"])
    with pytest.raises(InputError, match=r"^stored: model: "):
        recipe_from_dict({"train": {"epochs": 3}}, "stored", ["train.epochs=5"])


def test_mistakes_of_one_file_are_in_the_order_of_its_lines(tmp_path: Path) -> None:
    text = "model: {arch: resnet18}\neval: {crop: x}\ntrain:\n  batch_size: 37\n  epochs: x\n"
    path = write(tmp_path / "r.yaml", text)
    lines = [line.split(": ")[0] for line in mistakes(path, ["log.every=0"])]
    assert lines == ["override 'log.every=0'", *(f"{path}, line {n}" for n in (2, 4, 5))]


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("augment: {colour: 1}", 2),
        ("augment:\n  crop: pad\n  area: [0.1, 1]", 4),
        ("schedule: {name: cosine, end: 0}", 2),
        ("optimizer:\n  betas: [0.9, 0.99]", 3),
        ("data:\n  path: x", 3),
    ],
)
def test_an_unknown_key_of_a_chosen_section_is_blamed_on_the_file_that_has_it(
    section: str, line: int, tmp_path: Path
) -> None:
    path = write(tmp_path / "r.yaml", f"base: imagenet/_paper.yaml\n{section}\nmodel: {{arch: resnet18}}\n")
    with pytest.raises(InputError) as error:
        load_recipe(path)
    key = section.partition(":")[0] + "." + re.findall(r"(\w+): [^:]*$", section)[0]
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert f"{key}" in str(error.value).partition(f"line {line}: ")[2].split(";")[0]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("train.zebra", "the keys of train are epochs, "),
        ("train.ema", "ema.decay=D"),
        ("optimizer.eps", "the keys of optimizer (name=sgd) are "),
        ("erase.scale", "did you mean erase.area?"),
        ("augment.scale", "did you mean augment.area?"),
        ("train.drop_path", "did you mean model.stochastic_depth?"),
        ("mixup", "did you mean mix.mixup?"),
        ("randaugment", "did you mean auto_augment.name=randaugment?"),
        ("train.lr", "did you mean optimizer.lr?"),
        ("optimizer.epochs", "did you mean train.epochs?"),
        ("optimiser.momentum", "did you mean optimizer?"),
        ("epochs", "did you mean train.epochs?"),
        ("augment.color", "the keys of augment (crop=area) are "),
        ("augment.padding", "augment.crop=pad, "),
        ("zebra.x", "the sections are model, data, "),
    ],
)
def test_only_what_is_close_is_offered_else_all_keys(key: str, told: str, tmp_path: Path) -> None:
    section, _, name = key.partition(".")
    path = write(tmp_path / "r.yaml", f"model: {{arch: resnet18}}\n{section}: {{{name}: 1}}\n".replace("{: 1}", "1"))
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("own", "overrides", "micro_batch"),
    [
        ("", ["train.batch_size=100"], 25),
        ("", ["train.batch_size=64"], 32),
        ("", ["train.batch_size=40"], 20),
        ("", ["train.batch_size=17"], 17),
        ("", ["train.batch_size=100", "train.micro_batch=10"], 10),
        ("", ["train.micro_batch=10", "train.batch_size=100"], 10),
        ("train: {batch_size: 100}", [], 25),
        ("train: {batch_size: 100, micro_batch: 50}", [], 50),
        ("train: {micro_batch: 16}", ["train.batch_size=48"], 16),
    ],
)
def test_a_batch_size_alone_brings_a_micro_batch_that_divides_it(
    own: str, overrides: list[str], micro_batch: int, tmp_path: Path
) -> None:
    recipe, notes, _ = load_recipe_with_notes(
        write(tmp_path / "r.yaml", f"base: imagenet/_paper.yaml\nmodel: {{arch: resnet18}}\n{own}\n"), overrides
    )
    assert recipe.train.micro_batch == micro_batch
    assert [str(micro_batch) in note for note in notes] == [True] * (micro_batch in (25, 20, 17))


def test_a_batch_size_and_a_micro_batch_that_were_both_set_must_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", "model: {arch: resnet18}\ntrain:\n  batch_size: 100\n  micro_batch: 32\n")
    with pytest.raises(InputError, match=rf"{path}, line 3: train\.batch_size \(100\) .*train\.micro_batch \(32\)"):
        load_recipe(path)


def test_a_date_is_text_where_text_is_due(tmp_path: Path) -> None:
    data = load_recipe(write(tmp_path / "r.yaml", "model: {arch: resnet18}\ndata: {root: 2026-11-22}")).data
    assert isinstance(data, FolderData)
    assert data.root == "2026-11-22"


def test_the_error_names_the_file_that_holds_the_mistake(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "model: {arch: resnet18}\ntrain: {epohcs: 3}\n")
    path = write(tmp_path / "r.yaml", "base: base.yaml\ntrain: {seed: 3}\n")
    with pytest.raises(InputError, match=r"train\.epohcs") as error:
        load_recipe(path)
    assert str(error.value).startswith(base)


def test_a_shipped_recipe_with_a_base_is_a_base_and_no_more(tmp_path: Path) -> None:
    own = write(tmp_path / "own.yaml", "base: rsb/resnet50_a3\nmix: {cutmix: 0.5}\n")
    recipe = load_recipe(own)
    assert (recipe.mix.mixup, recipe.mix.cutmix, recipe.optimizer.name) == (0.1, 0.5, "lamb")
    assert recipe.train.reference == "rsb/a3"
    write(tmp_path / "b.yaml", "base: own.yaml\n")
    with pytest.raises(InputError, match=r"base: _base\.yaml is .*/b\.yaml builds on 2 others"):
        load_recipe(str(tmp_path / "b.yaml"))
    with pytest.raises(InputError, match=r"base: c\.yaml leads in a circle"):
        load_recipe(write(tmp_path / "c.yaml", "base: c.yaml\n"))


@pytest.mark.parametrize("held", ["", " sgd", " [1]", " 3"])
@pytest.mark.parametrize("override", ["train.epochs=3", "optimizer.lr=1", "optimizer.name=lamb"])
def test_an_override_hides_no_section_that_is_none(held: str, override: str, tmp_path: Path) -> None:
    write(tmp_path / "b.yaml", "train: {batch_size: 100}\noptimizer: {weight_decay: 0.5}\n")
    section = override.partition(".")[0]
    own = write(tmp_path / "r.yaml", f"base: b.yaml\nmodel: {{arch: resnet18}}\n{section}:{held}\n")
    for overrides in ([], [override]):
        with pytest.raises(InputError, match=rf"r\.yaml, line 3: {section}: should (be a section|hold)"):
            load_recipe(own, overrides)


def test_an_override_is_one_of_the_variant_that_the_overrides_choose(recipe_file: str) -> None:
    """In whichever order they are given; the recipe's own variant has no such keys."""
    for overrides in itertools.permutations(["auto_augment.zebra=0.5", "auto_augment.name=timm_randaugment"]):
        with pytest.raises(InputError, match=r"\(name=timm_randaugment\) are name, num_ops, magnitude, "):
            load_recipe(recipe_file, overrides)
    for overrides in itertools.permutations(["optimizer.beta1=0.5", "optimizer.name=adamw"]):
        assert load_recipe(recipe_file, overrides).to_dict()["optimizer"]["beta1"] == 0.5


def test_foreign_names_stand_for_keys_that_there_are() -> None:
    assert set(foreign_names.KEYS.values()) <= set(all_keys())
    assert not set(foreign_names.KEYS) & set(all_keys())
    named = {key for text in foreign_names.ADVICE.values() for key in re.findall(r"\b[a-z_]+\.[a-z_0-9]+\b", text)}
    assert named - {"docs/recipes.md", "recipes.md"} <= set(all_keys())


def test_finding_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = shipped_recipes()
    assert find_recipe("resnet50.yaml") == shipped / "imagenet" / "resnet50.yaml"
    assert find_recipe("resnet50") == shipped / "imagenet" / "resnet50.yaml"
    assert find_recipe("tiny_imagenet/resnext26_32x4d.yaml") == shipped / "tiny_imagenet" / "resnext26_32x4d.yaml"
    assert find_recipe("resnext26_32x4d.yaml") == shipped / "tiny_imagenet" / "resnext26_32x4d.yaml"
    own = write(tmp_path / "resnet50.yaml", "model: {arch: resnet50}")
    assert find_recipe("resnet50.yaml").samefile(own), "a path wins over a shipped recipe"
    paper = shipped / "imagenet" / "resnext50_32x4d.yaml"
    assert find_recipe("configs/imagenet/resnext50_32x4d.yaml") == paper
    assert find_recipe("resnext-train/configs/imagenet/resnext50_32x4d") == paper


@pytest.mark.parametrize(
    ("wrong", "offered"),
    [
        ("resnext50_32x4.yaml", "resnext50_32x4d"),
        ("resnext50", "resnext50_32x4d"),
        ("resnetx50", "resnext50_32x4d"),
        ("ResNeXt50", "resnext50_32x4d"),
        ("configs/resnext50.yaml", "resnext50_32x4d"),
        ("resnext101", "resnext101_64x4d"),
        ("smok", "smoke"),
        ("resnet50_a4", "rsb/resnet50_a3"),
        ("nvidia/resnet50", "nvidia/resnet50_90"),
        ("mmpretrain/resnet50", "mmpretrain/resnext50_32x4d"),
    ],
)
def test_a_name_that_is_almost_right_is_offered_once(wrong: str, offered: str) -> None:
    with pytest.raises(InputError) as error:
        find_recipe(wrong)
    assert re.findall(r"[\w/]+", str(error.value).partition("did you mean ")[2]).count(offered) == 1


def test_a_name_like_no_other_gets_no_offer() -> None:
    with pytest.raises(InputError, match="`resnext info`") as error:
        find_recipe("wombat")
    assert "did you mean" not in str(error.value)


def test_recipes_are_frozen(recipe_file: str) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe_file).train.epochs = 3  # type: ignore[misc]


def test_differences_name_the_keys(recipe_file: str) -> None:
    old, new = load_recipe(recipe_file), load_recipe(recipe_file, ["train.epochs=6", "schedule.name=cosine"])
    found = differences(old, new)
    assert found["train.epochs"] == (5, 6)
    assert found["schedule.name"] == ("step", "cosine")
    assert found["schedule.factor"] == (0.1, None)
    assert set(found) == {
        "train.epochs",
        "schedule.name",
        "schedule.milestones",
        "schedule.factor",
        "schedule.final",
    }


@pytest.mark.parametrize(
    ("duration", "steps"),
    [(2.0, 200), (0.5, 50), ("2 epochs", 200), ("1 epoch", 100), ("37 steps", 37), ("1 step", 1)],
)
def test_durations(duration: float | str, steps: int) -> None:
    assert duration_in_steps(duration, steps_per_epoch=100) == steps


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((shipped_recipes() / "recipe.schema.json").read_text())
    assert committed == recipe_schema(), "run `make schema`"


def test_the_schema_describes_every_key() -> None:
    for definition in recipe_schema()["$defs"].values():
        assert all("description" in p for p in definition["properties"].values() if "$ref" not in p)


def test_yaml_of_shipped_recipes_has_no_unknown_form() -> None:
    for path in shipped_recipes().rglob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("resnext50_32x4d.yaml", "resnext50_32x4d"),
        ("imagenet5k/resnet50", "imagenet5k/resnet50"),
        ("resnet110", "cifar/resnet110"),
        ("smoke.yaml", "smoke"),
    ],
)
def test_runs_of_recipes_of_the_same_name_get_folders_of_their_own(config: str, name: str) -> None:
    assert run_name(config) == name


def test_a_run_of_ones_own_recipe_is_called_like_its_file(tmp_path: Path) -> None:
    path = tmp_path / "cifar" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("model: {arch: resnet20}\n")
    assert run_name(str(path)) == "mine"


def test_another_optimizer_leaves_the_keys_of_the_first_behind() -> None:
    recipe = load_recipe("smoke.yaml", ["optimizer.name=rmsprop", "optimizer.lr=0.01"])
    assert isinstance(recipe.optimizer, RmspropSection)
    assert recipe.optimizer.lr == 0.01
    with pytest.raises(InputError, match=r"optimizer\.nesterov .*optimizer\.name"):
        load_recipe("smoke.yaml", ["optimizer.name=rmsprop", "optimizer.nesterov=true"])


@pytest.mark.parametrize(
    "override",
    [
        "data.size=1000000000",
        "data.size=9999",
        "data.classes=99999999999",
        "data.train_images=1000000000",
        "data.workers=100000",
        "augment.size=100000",
        "augment.aspect=[1, 1e308]",
        "eval.batch_size=9223372036854775808",
        "train.batch_size=1000000000",
        "train.max_steps=1000000000000000000",
        "train.patience=1e308",
        "train.seed=18446744073709551615",
        "optimizer.lr=1e308",
        "optimizer.weight_decay=1e308",
        "checkpoint.every_minutes=1e308",
        "model.cardinality=1000000000",
        "model.num_classes=1000000000",
    ],
)
def test_no_number_is_larger_than_a_machine_takes(override: str) -> None:
    with pytest.raises(InputError, match=f"{override.partition('=')[0]}: .* (less|at most) "):
        load_recipe("smoke.yaml", [override])


def test_a_zero_byte_is_no_part_of_a_path() -> None:
    with pytest.raises(InputError, match=r"eval\.classes.*zero byte"):
        load_recipe("smoke.yaml", ["eval.classes=a\0b"])


def test_what_is_no_file_is_no_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "r.yaml").write_text("base: pipe.yaml\nmodel: {arch: resnet18}\n")
    for name in (tmp_path / "r.yaml", tmp_path / "pipe.yaml", "/dev/zero"):
        with pytest.raises(InputError):
            load_recipe(str(name))
    with pytest.raises(InputError, match="pipe"):
        read_yaml(tmp_path / "pipe.yaml")


@pytest.mark.parametrize(("stored", "today"), [(False, "off"), (True, "default")])
def test_a_recipe_from_before_a_key_is_the_one_with_its_default(recipe_file: str, stored: bool, today: str) -> None:
    """When train.compile was a boolean, and layout, buckets and the like were not to be chosen."""
    recipe = load_recipe(recipe_file, [f"train.compile={today}", "train.last_batch=keep"])
    older = recipe.to_dict()
    for key in ("layout", "deterministic", "bucket_mb", "comm"):
        del older["train"][key]
    older["train"]["compile"] = stored
    assert recipe_from_dict(older, "a checkpoint") == recipe
    assert yaml.safe_load(recipe.to_yaml())["train"]["compile"] == today, "not what YAML takes for a boolean"


def test_what_is_chosen_by_the_clock_is_not_deterministic(recipe_file: str) -> None:
    with pytest.raises(InputError, match=r"train\.deterministic .* train\.compile=max-autotune"):
        load_recipe(recipe_file, ["train.deterministic=true", "train.compile=max-autotune"])
    load_recipe(recipe_file, ["train.deterministic=true", "train.compile=reduce-overhead"])


def test_buckets_of_a_compiled_network_are_not_smaller_than_torch_takes(recipe_file: str) -> None:
    with pytest.raises(InputError, match=r"train\.bucket_mb \(0\.5\) .* train\.compile=default"):
        load_recipe(recipe_file, ["train.bucket_mb=0.5", "train.compile=true"])


@pytest.mark.parametrize(
    ("text", "overrides", "trackers"),
    [
        ("{}", [], ("tensorboard",)),
        ("{to: csv}", [], ("csv",)),
        ("{to: [mlflow, csv]}", [], ("mlflow", "csv")),
        ("{}", ["log.to=[csv,wandb]"], ("csv", "wandb")),
        ("{}", ["log.to=csv"], ("csv",)),
        ("{}", ["log.to=csv,wandb"], ("csv", "wandb")),
        ("{}", ["log.to=[]"], ()),
        ("{tensorboard: true}", [], ("tensorboard",)),
        ("{tensorboard: false}", [], ()),
        ("{tensorboard: false, to: [csv]}", [], ("csv",)),
        ("{tensorboard: true, to: [csv, tensorboard]}", [], ("csv", "tensorboard")),
        ("{tensorboard: true}", ["log.to=[csv]"], ("csv",)),
        ("{to: [csv, tensorboard]}", ["log.tensorboard=false"], ("csv",)),
        ("{to: [csv]}", ["log.tensorboard=true"], ("csv", "tensorboard")),
        ("{tensorboard: true, to: 'csv, tensorboard'}", [], ("csv", "tensorboard")),
    ],
)
def test_trackers_and_the_switch_that_there_was_before(
    text: str, overrides: list[str], trackers: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(f"model: {{arch: resnet18}}\nlog: {text}\n")
    recipe = load_recipe(str(tmp_path / "r.yaml"), overrides)
    assert recipe.log.to == trackers
    assert recipe.to_dict()["log"].keys() == {"every", "to"}
    stored = {**recipe.to_dict(), "log": {"every": 20, "tensorboard": "tensorboard" in trackers}}
    assert recipe_from_dict(stored, "a checkpoint").log.to == (("tensorboard",) if "tensorboard" in trackers else ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{to: [csv, wandv]}", ("log.to", "wandb?", "wandv")),
        ("{to: 3}", ("log.to",)),
        ("{tensorboard: true, to: [csv]}", ("line 2", "log.tensorboard", "log.to")),
        ("{tensorboard: false, to: tensorboard}", ("line 2", "log.tensorboard", "log.to")),
        ("{tensorboard: 3}", ("line 2", "log.tensorboard", "true or false")),
    ],
)
def test_trackers_that_are_none_are_refused(text: str, told: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"model: {{arch: resnet18}}\nlog: {text}\n")
    with pytest.raises(InputError) as caught:
        load_recipe(str(tmp_path / "r.yaml"))
    assert all(fact in str(caught.value) for fact in told), str(caught.value)
