"""Options, folders and schedules as people type them who know other trainers."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
import torch
import torchvision

from helpers.commands import Refuses, evaluate, export, train
from helpers.runs import RUN, SMALL, events, state_of
from helpers.shared import made_once
from resnext_train.cli.main import main
from resnext_train.training.trainer import Trainer

DRY = [*RUN, "--dry-run"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of RUN, which tests must not change."""

    def run(folder: Path) -> None:
        assert train([*RUN, "--out", str(folder)]) == 0

    return made_once(tmp_path_factory, "finished", run)


def recipe_of(folder: Path) -> dict[str, Any]:
    first = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    recipe: dict[str, Any] = first["recipe"]
    return recipe


def test_customary_options_are_the_overrides_they_mean(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [o for o in SMALL if not o.startswith(("data.", "train.epochs", "train.batch_size", "train.micro"))]
    options = f"-b 8 --epochs 1 --lr 0.02 -j 0 --seed 7 --data {image_root} --output {tmp_path / 'run'} --gpus 1"
    assert train(["--config", "smoke", *options.split(), *small, "train.micro_batch=4"]) == 0
    recipe = recipe_of(tmp_path / "run")
    assert [recipe["train"][key] for key in ("batch_size", "micro_batch", "epochs", "seed")] == [8, 4, 1, 7]
    assert (recipe["optimizer"]["lr"], recipe["data"]["workers"]) == (0.1, 0), "section.key=value wins"
    assert (recipe["data"]["source"], recipe["data"]["root"]) == ("folder", str(image_root))
    assert "3 classes, 24 training, 9 validation images" in capsys.readouterr().out
    long = f"--batch-size 16 --epochs 3 --lr 0.02 --workers 1 --data {image_root} --dry-run"
    assert train(["--config", "resnet18", *long.split(), "augment.size=32", "eval.crop=32"]) == 0
    told = capsys.readouterr().out
    assert all(
        fact in told for fact in ("16 images a step", "6 steps in all", "0.02 at epoch 1", "loader processes: 1")
    )


def test_a_network_that_is_none_is_told_with_its_place(tmp_path: Path, refuses: Refuses) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("base: imagenet/_paper.yaml\nmodel:\n  arch: resnet50\n  depth: 3\n")
    assert f"{path}, line 3: model.arch: " in refuses(train, "--config", str(path), "--data", "x")
    assert "override 'model.arch=resnext50': " in refuses(train, "--config", str(path), "model.arch=resnext50")


def test_commands_by_other_names(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        ("validate --ckpt x", "did you mean eval?"),
        ("fit", "did you mean train?"),
        ("--config smoke", "resnext train --config smoke"),
        ("bench --config smoke", "bench data --config smoke"),
    ):
        assert main(words.split()) == 2
        assert told in capsys.readouterr().err


def test_devices_are_no_option(refuses: Refuses) -> None:
    assert "where there is one" in refuses(train, "--config", "smoke", "--device", "cuda")


def test_a_dry_run_shows_its_plan_before_it_refuses_the_run_folder(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*DRY, "train.epochs=3", "--out", str(finished)]) == 2
    out, err = capsys.readouterr()
    assert "9 steps in all" in out
    assert "train.epochs: 2 -> 3" in err
    assert train(["--config", "smoke", "--dry-run", "--data", "/nowhere", "--out", str(finished)]) == 2
    assert "/nowhere" in capsys.readouterr().err


def test_a_checkpoint_brings_its_recipe(finished: Path, tmp_path: Path, refuses: Refuses) -> None:
    shutil.copytree(finished, tmp_path / "run")
    assert train(["--resume", str(tmp_path / "run" / "checkpoints" / "last.pt"), "train.epochs=3"]) == 0
    assert state_of(tmp_path / "run")["step"] == 9
    assert "none.pt not found" in refuses(train, "--resume", "none.pt")
    assert "no run folder" in refuses(train, "--resume", str(tmp_path))


def test_a_micro_batch_that_was_chosen_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--config", "resnet18", "data.source=synthetic", "data.size=8", "-b", "100", "--dry-run"]) == 0
    assert re.search(r"^train\.micro_batch is 25: .*=100 .*\b32$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--momentum 0.9", "optimizer.momentum=0.9"),
        ("--weight-decay=1e-4", "optimizer.weight_decay=1e-4"),
        ("--wd 1e-4", "optimizer.weight_decay=1e-4"),
        ("--train.seed 3", "train.seed=3"),
        ("--label-smoothing", "train.label_smoothing=VALUE"),
        ("--size 3", "data.size=3 or augment.size=3"),
        ("--num-workers 8", "data.workers=8"),
        ("--nproc_per_node 8", "--procs 8"),
        ("--model resnet50", "model.arch=resnet50"),
        ("--optimizer adam", "optimizer.name=VALUE, one of sgd, rmsprop, adamw, lamb"),
        ("--opt lamb", "optimizer.name=lamb"),
        ("--amp", "train.precision=VALUE, one of auto, fp32, bf16, fp16"),
        ("--reprob 0.25", "erase.probability=0.25"),
        ("--drop-path=0.1", "model.stochastic_depth=0.1"),
        ("--scale 0.08 1.0", "augment.area=[0.08,1.0]"),
        ("--model-ema", "ema.decay=D"),
        ("--aa rand-m7-mstd0.5", "rand-m7"),
        ("--decay-milestones 30", "schedule.milestones=[30]"),
        ("--gpu 3", "a GPU is used"),
        ("drop_path=0.1", "model.stochastic_depth=0.1"),
        ("milestones=[2,4]", "schedule.milestones=[2,4]?"),
        ("--checkpoint x", "--resume x"),
        ("--data-path /x", "data.root=/x"),
        ("--print-freq 10", "log.every=10"),
        ("-c smoke", "--config smoke"),
        ("--channels-last", "it is the default"),
        ("--torchcompile", "train.compile=VALUE"),
        ("--use-deterministic-algorithms", "train.deterministic=true"),
        ("--evaluate", "resnext eval"),
        ("data.root=/x", "data.source=folder"),
        ("data.workers=many", "integer or 'auto'"),
        ("schedule.warmup=[1]", "[1]"),
        ("augment.area=3", "as in [1, 2]"),
        ("epochs=3", "train.epochs=3"),
        ("batch_size=3", "train.batch_size=3 or eval.batch_size=3"),
        ("--bogus", "--help"),
        ("--dryrun", "--dry-run"),
        ("--wombat 3", "--help"),
    ],
)
def test_any_other_option_is_answered_by_what_to_write(options: str, told: str, refuses: Refuses) -> None:
    error = refuses(train, "--config", "smoke", *options.split())
    assert re.split("[ =]", options)[0] in error
    assert re.search(rf"(write|mean|use|;|choose|valid|,|not) {re.escape(told)}", error), error


def test_words_without_an_option(finished: Path, tmp_path: Path, refuses: Refuses) -> None:
    assert f"--ckpt {finished}" in refuses(evaluate, str(finished))
    assert "--ckpt" in refuses(export, "--out", "x.pth")
    assert f"--resume {finished}" in refuses(train, "--config", str(finished))
    assert "is a folder" in refuses(evaluate, "--ckpt", str(finished), "--json", str(tmp_path))
    assert "--config smoke" in refuses(train, "smoke", "--epochs", "3")
    assert f"mean data.root={tmp_path}?" in refuses(train, "--config", "resnet18", str(tmp_path))


def test_a_command_without_overrides_offers_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of several options gets its answer."""
    assert export(["--ckpt", "a.pt", "--out", "b.pth", "--confg", "smoke", "--momentum", "3"]) == 2
    first, confg, momentum = capsys.readouterr().err.splitlines()
    assert " 2 options" in first
    assert "--config?" in confg
    assert "--momentum; --help" in momentum


def test_a_run_folder_stands_for_its_checkpoints(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses
) -> None:
    branch = tmp_path / "branch"
    longer = ["train.epochs=3", "--resume", str(finished), "--out", str(branch)]
    assert train([*RUN, *longer]) == 0
    assert f"continuing from {finished / 'checkpoints' / 'last.pt'}, step 6" in capsys.readouterr().out
    assert state_of(branch) == {"status": "done", "step": 9}
    assert train(["--resume", str(branch / "checkpoints"), "train.epochs=4"]) == 0, "in place, with its own recipe"
    assert state_of(branch) == {"status": "done", "step": 12}
    assert recipe_of(branch)["train"]["epochs"] == 4
    capsys.readouterr()
    result = tmp_path / "result.json"
    assert evaluate(["--ckpt", str(branch), "--json", str(result), "-j", "0", "-b", "4"]) == 0
    told = json.loads(result.read_text())
    assert told["checkpoint"] == str(branch / "checkpoints" / "best.pt")
    assert told["count"] == 37
    (branch / "checkpoints" / "best.pt").unlink()
    assert "last.pt" in refuses(evaluate, "--ckpt", str(branch))
    assert "checkpoints/last.pt" in refuses(train, "--config", "smoke", "--resume", str(tmp_path))
    assert "--config" in refuses(train, "train.epochs=3")


def test_the_command_that_branched_continues_the_branch(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was killed before its first save, and where the run that it began from is gone."""
    parent, out = tmp_path / "parent", tmp_path / "branch"
    shutil.copytree(finished, parent)
    branch = [*RUN, "train.epochs=4", "train.max_steps=8", "--resume", str(parent), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(branch)
    assert not list((out / "checkpoints").iterdir())
    assert train(branch) == 0
    shutil.rmtree(parent)
    assert train(branch) == 0
    assert [event["step"] for event in events(out, "start")] == [6, 6, 8]
    assert [event["step"] for event in events(out, "step")] == [8]


def killed(*anything: object) -> None:
    raise RuntimeError("killed")


def test_a_branch_that_lost_its_checkpoints_is_not_begun_again(
    finished: Path, tmp_path: Path, refuses: Refuses
) -> None:
    branch = [*RUN, "--resume", str(finished), "--out", str(tmp_path / "run")]
    assert train(branch) == 0, "with nothing left to train"
    assert train(branch) == 0
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    assert str(tmp_path / "run") in refuses(train, *branch)


def test_resume_without_a_value_is_auto(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert train([*RUN, *out, "--resume", "train.max_steps=2"]) == 0
    assert train([*RUN, *out, "train.max_steps=2", "--resume"]) == 0
    assert state_of(tmp_path / "run")["step"] == 2
    assert recipe_of(tmp_path / "run")["train"]["max_steps"] == 2


def test_a_dry_run_opens_what_the_run_would(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses
) -> None:
    out = tmp_path / "run"
    before = sorted(finished.rglob("*"))
    assert train([*DRY, "--out", str(finished)]) == 0
    told = capsys.readouterr().out
    assert re.search(rf"^run folder +{finished}$", told, re.MULTILINE)
    assert "last.pt, step 6" in told
    assert sorted(finished.rglob("*")) == before
    weights = tmp_path / "weights.pth"
    torch.save(torchvision.models.resnet18(num_classes=4).state_dict(), weights)
    assert "conv1.weight" in refuses(train, *DRY, f"model.weights={weights}", "--out", str(out))
    assert train([*DRY, "model.arch=resnet18", "model.width=1.0", f"model.weights={weights}", "--out", str(out)]) == 0
    assert f"weights: {weights}: names of torchvision" in capsys.readouterr().out
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes((finished / "checkpoints" / "last.pt").read_bytes()[:-100])
    assert "damaged.pt" in refuses(train, *DRY, "--resume", str(damaged), "--out", str(out))
    assert "train.epochs: 2 -> 3" in refuses(train, *DRY, "train.epochs=3", "--out", str(finished))
    last = str(finished / "checkpoints" / "last.pt")
    assert "another network" in refuses(train, *DRY, "model.width=0.5", "--resume", last, "--out", str(out))
    assert not out.exists()


def test_a_dry_run_looks_at_the_run_folder(tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refuses(train, *DRY, "--out", str(tmp_path / "file" / "run"))
    code = "from pathlib import Path; from resnext_train.run_dir.run_paths import RunDir\n"
    code += f"lock = RunDir(Path({str(tmp_path / 'used')!r})).lock(); print('held', flush=True); input()"
    with Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert f"process {other.pid} " in refuses(train, *DRY, "--out", str(tmp_path / "used"))
        other.kill()
    monkeypatch.setattr("shutil.disk_usage", lambda path: Room())
    assert "--out" in refuses(train, *DRY, "--out", str(tmp_path / "full" / "run"))
    assert not (tmp_path / "full").exists()


class Room:
    free = 1000


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["train.max_steps=5", "schedule.warmup=2"], ("5 steps", "8 steps", "0.1")),
        (["schedule.name=step", "schedule.milestones=[1, 5]"], ("2 epochs", " 5;")),
        (["schedule.name=step", "schedule.milestones=[1, '8 steps']"], ("2 epochs", " 8 steps;")),
        (["schedule.name=exponential", "schedule.every=2"], ("2 epochs", "schedule.every=2")),
        (["schedule.name=plateau", "schedule.patience=1"], ("2 epochs", "schedule.patience=1", " 3 ")),
        (["schedule.name=step", "schedule.milestones=[1]", "schedule.warmup=1"], ()),
        (["schedule.name=plateau", "schedule.patience=0", "train.epochs=3"], ()),
        (["schedule.name=exponential", "schedule.every=1"], ()),
        ([], ()),
    ],
)
def test_a_schedule_that_does_not_come_to_pass_is_warned_of(
    options: list[str], told: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    four_steps = "data.train_images=64"
    assert train([*DRY, four_steps, *options, "--out", str(tmp_path / "run")]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == bool(told)
    assert all(fact in warnings[0] for fact in told)


def test_an_unknown_normalisation_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = torchvision.models.resnet18(num_classes=4).state_dict()
    path = tmp_path / "port.th"
    torch.save({k.replace("fc.", "linear.").replace("downsample", "shortcut"): v for k, v in weights.items()}, path)
    arch = ["model.arch=resnet18", "model.width=1.0", "data.mean=[0.5, 0.25, 0.125]"]
    assert evaluate(["--ckpt", str(path), "--config", "smoke.yaml", *SMALL, *arch]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^warning: .*port\.th .*mean 0\.5 0\.25 0\.125, std 0\.229 ", err, re.MULTILINE)
    assert re.search(r"^evaluation .*mean 0\.5 0\.25 0\.125, std 0\.229 0\.224 0\.225", out, re.MULTILINE)
    assert re.search(r"^accuracy +\d", out, re.MULTILINE)


def test_milestones_that_no_run_reaches_make_no_other_recipe(
    tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    run = [*RUN, "--out", str(tmp_path / "run"), "schedule.name=step"]
    assert train([*run, "train.max_steps=2", "schedule.milestones=[1, 2, 90]"]) == 0
    assert train([*run, "train.max_steps=2", "schedule.milestones=[1]"]) == 0
    capsys.readouterr()
    told = refuses(train, *run, "train.max_steps=2", "schedule.milestones=['1 step']")
    assert "schedule.milestones: [1.0]" in told
