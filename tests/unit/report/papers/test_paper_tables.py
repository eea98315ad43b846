"""Tables of the papers, filled from run folders with known counts."""

from __future__ import annotations

import json
import shlex
import shutil
import statistics
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import evaluate
from helpers.run_folders import MACHINE, write_run
from resnext_train.cli.command_table import Command, find_command
from resnext_train.cli.main import parser_of
from resnext_train.cli.requests import read_eval, read_train
from resnext_train.cli.sweep_requests import read_sweep
from resnext_train.config import load_recipe
from resnext_train.errors import InputError
from resnext_train.report.papers.paper_runs import result_under
from resnext_train.report.papers.paper_table_data import TABLES, TEN_CROP, Protocol
from resnext_train.report.papers.paper_tables import FilledTable, fill_table, recipes_of
from resnext_train.report.run_record import read_run, read_runs


def imagenet_run(folder: Path, accuracy: float, recipe: str = "resnext50_32x4d", **options: Any) -> Path:
    """A finished run on ImageNet-1K, with a worse accuracy in its last epoch than in the one before."""
    epochs = options.pop("epochs", load_recipe(recipe).train.epochs)
    machine = MACHINE | {"classes": options.pop("classes", 1000)}
    options = {"images": 50_000, **options}
    return write_run(folder, [accuracy + 1, accuracy], recipe=recipe, epochs=epochs, machine=machine, **options)


def cifar_run(folder: Path, correct: int, seed: int, recipe: str = "cifar/resnext29_8x64d") -> Path:
    """A finished run on CIFAR-10 with `correct` of 10,000 images in its last epoch."""
    return write_run(folder, [correct / 100], recipe=recipe, seed=seed, epochs=300, images=10_000, machine=MACHINE)


def filled(name: str, folder: Path) -> FilledTable:
    return fill_table(name, read_runs([folder]))


def row(table: FilledTable, *labels: str) -> dict[str, str]:
    """The texts of the row with these labels, by column."""
    (line,) = (line for line in table.lines if line[: len(labels)] == labels)
    return dict(zip((column.name for column in table.columns), line, strict=True))


def commands(table: FilledTable, *labels: str) -> list[str]:
    return next(list(r.commands) for r in table.rows if r.row.labels == labels)


def test_a_run_fills_its_cell_with_the_last_epochs_error(tmp_path: Path) -> None:
    imagenet_run(tmp_path / "mine", 77.5)
    table = filled("3", tmp_path)
    assert row(table, "ResNeXt-50", "32×4d") == {
        **{"Network": "ResNeXt-50", "Setting": "32×4d", "Top-1 published": "22.2"},
        **{"Top-1 runs": "22.50", "Top-1 difference": "+0.30", "Runs": "1 of 1"},
    }
    assert commands(table, "ResNeXt-50", "32×4d") == []
    others = [line for line in table.lines if line[:2] != ("ResNeXt-50", "32×4d")]
    assert len(others) == 9
    assert {line[3:] for line in others} == {("–", "–", "0 of 1")}
    assert commands(table, "ResNet-101", "1×64d") == [
        "resnext train --config resnet101_1x64d data.root=/path/to/imagenet"
    ]
    assert table.left_out == ()


def test_seeds_have_mean_and_standard_deviation(tmp_path: Path) -> None:
    correct = [9630, 9641, 9622]
    for seed, count in enumerate(correct):
        cifar_run(tmp_path / f"seed{seed}", count, seed)
    found = row(filled("7", tmp_path), "ResNeXt-29, 8×64d", "34.4 M", "CIFAR-10")
    errors = [3.70, 3.59, 3.78]
    assert found["Top-1 runs"] == f"3.69 ± {statistics.stdev(errors):.2f}" == "3.69 ± 0.10"
    assert found["Top-1 difference"] == "+0.04"
    assert found["Runs"] == "3 of 10"


def test_ten_runs_make_the_papers_cell(tmp_path: Path) -> None:
    for seed in (0, 2, 3):
        cifar_run(tmp_path / f"seed{seed}", 9600 + seed, seed)
    cell = ("ResNeXt-29, 8×64d", "34.4 M", "CIFAR-10")
    sweep = "resnext sweep --config cifar/resnext29_8x64d --seeds {} data.root=/path/to/cifar"
    assert commands(filled("7", tmp_path), *cell) == [sweep.format("1,4,5,6,7,8,9")]
    cifar_run(tmp_path / "seed1", 9601, 1)
    assert commands(filled("7", tmp_path), *cell) == [sweep.format("4:10")]
    for seed in range(4, 10):
        cifar_run(tmp_path / f"seed{seed}", 9600 + 2 * seed, seed)
    table = filled("7", tmp_path)
    assert row(table, *cell)["Runs"] == "10 of 10"
    correct = [9600, 9601, 9602, 9603, 9608, 9610, 9612, 9614, 9616, 9618]
    error, spread = 100 - statistics.fmean(correct) / 100, statistics.stdev(correct) / 100
    assert row(table, *cell)["Top-1 runs"] == f"{error:.2f} ± {spread:.2f}" == "3.92 ± 0.07"
    assert commands(table, *cell) == []
    assert row(table, "ResNeXt-29, 8×64d", "34.4 M", "CIFAR-100")["Runs"] == "0 of 10"
    cifar_run(tmp_path / "again", 9000, 9)
    table = filled("7", tmp_path)
    assert row(table, *cell)["Runs"] == "10 of 10"
    assert len(table.left_out) == 1


def test_a_mean_is_compared_with_the_published_mean(tmp_path: Path) -> None:
    for seed in range(5):
        folder = tmp_path / f"seed{seed}"
        write_run(folder, [93.5], recipe="cifar/resnet110", seed=seed, epochs=164, images=10_000, machine=MACHINE)
    found = row(filled("resnet-6", tmp_path), "ResNet", "110", "1.7 M")
    assert found["Top-1 published"] == "6.43 (6.61±0.16)"
    assert (found["Top-1 runs"], found["Top-1 difference"], found["Runs"]) == ("6.50 ± 0.00", "−0.11", "5 of 5")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"epochs": 10}, "(train.epochs 100 → 10)"),
        ({"overrides": ["optimizer.clip_norm=1.5"]}, "(optimizer.clip_norm unset → 1.5)"),
        (
            {"overrides": ["optimizer.lr=0.2", "schedule.milestones=[3,6]"]},
            "(optimizer.lr 0.1 → 0.2, schedule.milestones [30, 60, 90] → [3, 6])",
        ),
        ({"status": "preempted"}, "(preempted at step 40)"),
        ({"status": "running"}, "(killed at step 40)"),
        ({"classes": 10}, "(10 classes, not 1,000)"),
        ({"images": 500}, "(evaluated on 500 images, not 50,000)"),
    ],
)
def test_runs_that_do_not_count_are_named_with_the_reason(tmp_path: Path, options: Mapping[str, Any], why: str) -> None:
    imagenet_run(tmp_path / "mine", 77.5, **options)
    table = filled("3", tmp_path)
    assert row(table, "ResNeXt-50", "32×4d")["Runs"] == "0 of 1"
    assert table.left_out == (f"mine {why}",)
    assert table.others == 0
    assert f"Left out: mine {why}." in table.as_table().caption


def test_where_and_how_a_recipe_is_computed_does_not_matter(tmp_path: Path) -> None:
    free = ["data.root=/mnt/imagenet", "train.precision=bf16", "eval.batch_size=7", "model.form=b", "log.every=3"]
    imagenet_run(tmp_path / "mine", 77.5, seed=4, overrides=free)
    assert row(filled("3", tmp_path), "ResNeXt-50", "32×4d")["Runs"] == "1 of 1"


def test_runs_of_other_networks_are_counted(tmp_path: Path) -> None:
    imagenet_run(tmp_path / "a", 77.5, recipe="resnet18")
    write_run(tmp_path / "b")
    damaged = imagenet_run(tmp_path / "c", 77.5)
    (damaged / "recipe.yaml").write_text("train: {epochs: 1}")
    table = filled("3", tmp_path)
    assert (table.others, table.left_out) == (3, ())
    assert "other networks, or with a recipe that cannot be read: 3." in table.as_table().caption


def test_a_damaged_summary_is_no_result(tmp_path: Path) -> None:
    run = imagenet_run(tmp_path / "mine", 77.5)
    (run / "summary.json").write_text('{"last": {"count": 50000')
    table = filled("3", tmp_path)
    assert row(table, "ResNeXt-50", "32×4d")["Runs"] == "0 of 1"
    assert table.left_out == ("mine (its summary.json has no evaluation)",)


def write_result(run: Path, name: str, overrides: Sequence[str], correct: int, **more: Any) -> None:
    """What `resnext eval --out` writes of the last checkpoint, as far as it matters here."""
    recipe = load_recipe("resnet18_shortcut_a", overrides)
    folder = run / name
    folder.mkdir()
    values = {"count": 50_000, "top1_correct": correct, "top5_correct": 45_000, "epoch": 2, "classes": [{}] * 1000}
    values |= {"eval": recipe.eval.model_dump(mode="json"), **more}
    (folder / "result.json").write_text(json.dumps(values))


CELL = ("18", "ResNet")
EVALUATE = "resnext eval --ckpt {0}/checkpoints/last.pt eval.protocol=ten_crop --out {0}/evaluation_ten_crop"


def test_another_protocol_than_trainings_is_an_evaluation_of_its_own(tmp_path: Path) -> None:
    run = imagenet_run(tmp_path / "mine", 70.0, recipe="resnet18_shortcut_a")
    table = filled("resnet-2", tmp_path)
    assert row(table, *CELL)["Runs"] == "0 of 1"
    assert commands(table, *CELL) == [EVALUATE.format(run)]
    assert commands(table, "18", "plain") == [
        "resnext train --config plain18 data.root=/path/to/imagenet",
        EVALUATE.format("runs/plain18"),
    ]
    write_result(run, "evaluation_ten_crop", ["eval.protocol=ten_crop"], 36_000)
    table = filled("resnet-2", tmp_path)
    assert row(table, *CELL)["Top-1 runs"] == "28.00"
    assert row(table, *CELL)["Top-1 difference"] == "+0.12"
    assert commands(table, *CELL) == []


@pytest.mark.parametrize(
    ("overrides", "more"),
    [
        ([], {}),  # the centre crop
        (["eval.protocol=ten_crop", "eval.resize=320", "eval.crop=288"], {}),
        (["eval.protocol=ten_crop", "eval.average=logits"], {}),
        (["eval.protocol=ten_crop", "eval.classes=/some/folder"], {}),
        (["eval.protocol=ten_crop", "eval.labels=imagenet-real"], {}),
        (["eval.protocol=ten_crop"], {"epoch": 1}),  # best.pt of an earlier epoch
        (["eval.protocol=ten_crop"], {"epoch": None}),  # an ensemble
        (["eval.protocol=ten_crop"], {"recalibrated_bn": 1000}),
        (["eval.protocol=ten_crop"], {"eval": None}),  # of an earlier version
        (["eval.protocol=ten_crop"], {"count": 0}),
    ],
)
def test_other_evaluations_do_not_fill_it(tmp_path: Path, overrides: list[str], more: dict[str, Any]) -> None:
    run = imagenet_run(tmp_path / "mine", 70.0, recipe="resnet18_shortcut_a")
    write_result(run, "evaluation", overrides, 36_000, **more)
    (run / "evaluation_damaged").mkdir()
    (run / "evaluation_damaged" / "result.json").write_text('{"count": ')
    table = filled("resnet-2", tmp_path)
    assert row(table, *CELL)["Runs"] == "0 of 1"
    assert commands(table, *CELL) == [EVALUATE.format(run)]
    of_others = {1: "mine/evaluation (weights of epoch 1, not of the last, 2)"}
    of_others[0] = "mine/evaluation (weights of no known epoch, not of the last, 2)"
    assert table.left_out == ((of_others[more["epoch"] or 0],) if "epoch" in more else ())


def test_one_run_fills_the_cells_of_several_crops(tmp_path: Path) -> None:
    run = imagenet_run(tmp_path / "mine", 79.5, recipe="resnext101_64x4d")
    write_result(run, "evaluation_at_320", ["eval.resize=320", "eval.crop=320"], 40_500)
    table = filled("5", tmp_path)
    found = [row(table, "ResNeXt-101, 64×4d", crop) for crop in ("224×224", "320×320")]
    assert [(f["Top-1 runs"], f["Top-1 difference"]) for f in found] == [("20.50", "+0.10"), ("19.00", "−0.10")]
    assert [(f["Top-5 runs"], f["Top-5 difference"]) for f in found] == [("15.50", "+10.20"), ("10.00", "+5.60")]


def test_imagenet_5k_among_1k_classes(tmp_path: Path) -> None:
    run = imagenet_run(tmp_path / "mine", 54.0, recipe="imagenet5k/resnet50", classes=5000)
    cell = ("ResNet-50", "1×64d", "1K-way")
    classes = "eval.classes=/path/to/imagenet/val"
    evaluate = f"resnext eval --ckpt {run}/checkpoints/last.pt {classes} --out {run}/evaluation_1k_way"
    assert commands(filled("6", tmp_path), *cell) == [evaluate]
    write_result(run, "evaluation_1k_way", ["eval.classes=/data/imagenet/val"], 36_500)
    table = filled("6", tmp_path)
    assert row(table, *cell)["Top-1 runs"] == "27.00"
    assert row(table, "ResNet-50", "1×64d", "5K-way")["Top-1 runs"] == "46.00"


def test_commands_leave_the_folders_of_other_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    imagenet_run(Path("runs/plain18"), 70.0, recipe="plain18", epochs=3)  # of fewer epochs
    imagenet_run(Path("runs/plain34"), 70.0, recipe="plain34", status="preempted")  # which the command continues
    cifar_run(Path("runs/cifar/resnext29_8x64d-seed0"), 9000, 77)
    table = filled("resnet-2", Path("runs"))
    assert commands(table, "18", "plain")[0] == (
        "resnext train --config plain18 --out runs/paper/plain18 data.root=/path/to/imagenet"
    )
    assert commands(table, "18", "plain")[1] == EVALUATE.format("runs/paper/plain18")
    assert commands(table, "34", "plain")[0] == "resnext train --config plain34 data.root=/path/to/imagenet"
    assert commands(filled("7", Path("runs")), "ResNeXt-29, 8×64d", "34.4 M", "CIFAR-10") == [
        "resnext sweep --config cifar/resnext29_8x64d --seeds 0:9 --out runs/paper data.root=/path/to/cifar"
    ]


@pytest.mark.slow
def test_what_eval_writes_is_recognised(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    recipe = str(run / "recipe.yaml")
    record = read_run(run)
    assert result_under(record, recipe, TEN_CROP) is None
    checkpoint = str(run / "checkpoints" / "last.pt")
    assert evaluate(["--ckpt", checkpoint, *TEN_CROP.overrides, "--out", str(run / "evaluation_ten_crop")]) == 0
    written = json.loads((run / "evaluation_ten_crop" / "result.json").read_text())
    assert (written["eval"]["protocol"], written["epoch"]) == ("ten_crop", 2)
    found = result_under(record, recipe, TEN_CROP)
    assert found is not None
    assert (found.top1_correct, found.top5_correct, found.count) == (
        written["top1_correct"],
        written["top5_correct"],
        37,
    )


@pytest.mark.slow
def test_evaluations_among_some_classes_are_recognised(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    listed = tmp_path / "classes.txt"
    listed.write_text("class_0000\nclass_0002\n")
    among = Protocol("1k_way", (f"eval.classes={listed}",), 2)
    checkpoint = str(run / "checkpoints" / "last.pt")
    assert evaluate(["--ckpt", checkpoint, *among.overrides, "--out", str(run / "evaluation_1k_way")]) == 0
    record, recipe = read_run(run), str(run / "recipe.yaml")
    assert result_under(record, recipe, among) is not None
    assert result_under(record, recipe, Protocol("1k_way", among.overrides, 3)) is None
    assert result_under(record, recipe, TEN_CROP) is None


READERS: dict[str, Callable[[Namespace], Any]] = {"train": read_train, "eval": read_eval, "sweep": read_sweep}


@pytest.mark.parametrize("name", TABLES)
def test_all_commands_are_understood(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = fill_table(name, [])
    assert table.commands
    folders = set()
    for text in table.commands:
        program, verb, *words = shlex.split(text)
        words = [f"data.root={tmp_path}" if word.startswith("data.root=") else word for word in words]
        command = find_command([verb])
        assert program == "resnext"
        assert isinstance(command, Command)
        args = parser_of("resnext", command).parse_intermixed_args(words)
        if verb == "eval":
            assert Path(args.ckpt[0]).parent.parent in folders, "nothing trains it"
            Path(args.ckpt[0]).parent.mkdir(parents=True)
            Path(args.ckpt[0]).touch()
        request = READERS[verb](args)
        if verb == "train":
            folders.add(request.folder.path)
    trained = [word for text in table.commands for word in shlex.split(text) if " --config " in text]
    assert set(recipes_of(name)) <= set(trained)


def test_the_table_for_files_has_the_commands_as_a_column(tmp_path: Path) -> None:
    imagenet_run(tmp_path / "mine", 77.5)
    table = fill_table("3", read_runs([tmp_path])).as_table()
    assert table.key == "paper-table-3"
    assert "Table 3" in table.title
    assert "arXiv 1611.05431" in table.caption
    assert "last epoch" in table.caption
    assert [column.name for column in table.columns[-2:]] == ["Runs", "To fill it"]
    assert {len(line) for line in table.rows} == {len(table.columns)}
    assert table.rows[0][-1] == "resnext train --config resnet50_1x64d data.root=/path/to/imagenet"
    assert table.rows[4][-1] == ""


@pytest.mark.parametrize("name", ["", "8"])
def test_a_wrong_name_lists_all_tables(name: str) -> None:
    for ask in (recipes_of, lambda name: fill_table(name, [])):
        with pytest.raises(InputError) as refusal:
            ask(name)
        assert all(key in str(refusal.value) and table.title in str(refusal.value) for key, table in TABLES.items())
        assert "\n" not in str(refusal.value)
