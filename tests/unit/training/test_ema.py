"""The average of the weights: torch's own, kept through skipped steps and resumes, evaluated and taken by name."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import resnext_train as rt
from helpers.commands import Refuses, evaluate, export, predict, train
from helpers.images import save_image
from helpers.runs import RUN, equal_runs, events
from helpers.shared import made_once
from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.stored_weights import best_of, result_of, stored_weights
from resnext_train.config import load_recipe
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.errors import InputError
from resnext_train.inference.evaluate_networks import evaluate_networks
from resnext_train.inference.evaluation_request import EvaluationRequest
from resnext_train.inference.predictor import doubt_about
from resnext_train.inference.stored_network import read_network
from resnext_train.training.ema import WeightAverage

AVERAGED = [*RUN, "optimizer.lr=0.02", "train.seed=2", "ema.decay=0.6", "log.to=[tensorboard]", "checkpoint.keep=2"]
COUNTS = ("count", "top1_correct", "top5_correct", "top1", "top5", "loss", "unreadable")
FINE, SPOILT = torch.tensor(True), torch.tensor(False)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 2)).to(memory_format=torch.channels_last)


def disturb(model: nn.Module, step: int) -> None:
    """Change all weights and statistics, as a step does."""
    g = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(tensor + torch.randn(tensor.shape, generator=g).mul(0.1) if tensor.dim() else tensor + 1)


def same_bits(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    bits = [{k: t.contiguous().numpy().tobytes() for k, t in of_one.items()} for of_one in (one, two)]
    return bits[0] == bits[1]


@pytest.mark.parametrize(("every", "warmup"), [(1, 0), (2, 0), (2, 5), (3, 3)])
def test_updates_are_those_of_torch_and_of_torchvisions_warm_up(every: int, warmup: int) -> None:
    """torchvision sets the count of AveragedModel to 0 after each update of a warm-up epoch."""
    model = small()
    ours = WeightAverage(model, 0.9, every, warmup)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    assert same_bits(ours.network().state_dict(), model.state_dict()), "it begins as the weights"
    for step in range(10):
        disturb(model, step)
        ours.update(step, FINE)
        if (step + 1) % every == 0:
            counted = {k: v.clone() for k, v in model.state_dict().items() if "num_batches" in k}
            theirs.update_parameters(model)
            if step < warmup:
                theirs.n_averaged.fill_(0)
    averaged = ours.network().state_dict()
    for name, expected in theirs.module.state_dict().items():
        if name in counted:
            assert torch.equal(averaged[name], counted[name]), "whole numbers are those of the last update"
        else:
            torch.testing.assert_close(averaged[name], expected, rtol=1e-6, atol=1e-7)
            assert not torch.equal(averaged[name], model.state_dict()[name])


def test_a_skipped_step_changes_no_bit_and_is_not_the_first_update() -> None:
    model = small()
    average = WeightAverage(model, 0.9)
    state = average.state_dict()
    state["weights"]["2.bias"].fill_(-0.0)  # which a move by nothing would change
    before = {k: v.clone() for k, v in state["weights"].items()}
    disturb(model, 0)
    average.update(0, SPOILT)
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(torch.nan)
    average.update(1, SPOILT)
    assert same_bits(average.state_dict()["weights"], before)
    disturb(model.get_submodule("1"), 2)
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(1)
    average.update(2, FINE)
    torch.testing.assert_close(average.network().state_dict(), model.state_dict(), rtol=0, atol=0)


def test_the_best_is_the_better_of_both_and_the_networks_own_of_equal_ones() -> None:
    def evaluation(model: int, ema: int) -> dict[str, Any]:
        return {"epoch": 3, "top1_correct": model, "loss": 1.0, "ema": {"top1_correct": ema, "loss": 2.0}}

    assert best_of(evaluation(5, 6)) == {"epoch": 3, "top1_correct": 6, "loss": 2.0, "weights": "ema"}
    assert best_of(evaluation(6, 6)) == {"epoch": 3, "top1_correct": 6, "loss": 1.0, "weights": "model"}
    alone = {"epoch": 3, "top1_correct": 5}
    assert best_of(alone) == alone


@pytest.mark.parametrize("train", [None, {"max_steps": 4}], ids=str)
def test_an_average_that_has_not_moved_is_not_taken_unasked(train: Any) -> None:
    """Stopped at step 3, with ema.every=32: what would be taken are the random weights that it began as."""
    content = {
        "model": {"w": 1},
        "ema": {"updates": torch.tensor(0), "weights": {"w": 2}},
        "progress": {"step": 3, "last": None, "epoch_is_open": False},
        "plan": {"steps_per_epoch": 7},
        "recipe": {"train": train},
    }
    assert stored_weights(content, "auto", Path("a.pt")).kind == "model"
    assert stored_weights(content, "ema", Path("a.pt")).weights == {"w": 2}
    content["ema"]["updates"] += 1  # type: ignore[index]
    assert stored_weights(content, "auto", Path("a.pt")).kind == "ema"


@pytest.mark.parametrize(("given", "others"), [("--weights ema", "--weights auto"), ("36", "40")])
def test_processes_with_other_weights_or_views_are_refused(
    given: str, others: str, averaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process, which was given something else, would score its part of the images by another network."""
    context = DistContext(Rank(), torch.device("cpu"))

    def gather(value: Any) -> list[Any]:
        text = repr(value)
        return [value, ast.literal_eval(text.replace(given, others))]

    monkeypatch.setattr(context, "gather", gather)
    request = EvaluationRequest((averaged / "checkpoints" / "last.pt",), weights="ema", overrides=("eval.resize=36",))
    with pytest.raises(InputError, match=rf"process 1 of 2 .* was given .*{others}, the other .*{given}"):
        evaluate_networks(request, context)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that keeps an average."""

    def run(out: Path) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        assert train([*AVERAGED, "--out", str(out)]) == 0
        torch.set_num_threads(threads)

    return made_once(tmp_path_factory, "averaged", run)


def test_both_are_evaluated_logged_and_evaluated_again_to_the_bit(averaged: Path) -> None:
    summary = json.loads((averaged / "summary.json").read_text())
    epochs, last = events(averaged, "epoch"), averaged / "checkpoints" / "last.pt"
    found = [(e["epoch"], e["val_top1_correct"], e["ema"]["top1_correct"]) for e in epochs]
    epoch, model, ema = max(found, key=lambda of_epoch: max(of_epoch[1:]))
    assert (summary["best"]["epoch"], summary["best"]["top1_correct"]) == (epoch, max(model, ema))
    assert summary["best"]["weights"] == ("ema" if ema > model else "model")
    assert summary["last"]["ema"] == epochs[-1]["ema"]
    logged = {"model": summary["last"], "ema": summary["last"]["ema"]}
    again = {kind: rt.evaluate(last, weights=kind) for kind in logged}
    for kind, result in again.items():
        assert result["weights"] == kind
        assert {key: result[key] for key in COUNTS} == {key: logged[kind][key] for key in COUNTS}
    assert again["model"]["loss"] != again["ema"]["loss"]
    best = rt.evaluate(averaged)
    assert {key: best[key] for key in (*COUNTS, "weights")} == {k: summary["best"][k] for k in (*COUNTS, "weights")}
    curves = EventAccumulator(str(averaged))
    curves.Reload()
    assert [point.value for point in curves.Scalars("val/ema_loss")] == pytest.approx(
        [e["ema"]["loss"] for e in epochs]
    )


def test_a_run_resumes_its_average_to_the_bit(
    averaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    first = averaged / "checkpoints" / "epoch_0001.pt"
    assert train([*AVERAGED, "--resume", str(first), "--out", str(tmp_path / "run")]) == 0
    assert equal_runs(tmp_path / "run", averaged)
    last = json.loads((averaged / "summary.json").read_text())["last"]
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("epoch 2/2: ema "))
    (final,) = (line for line in lines if line.startswith("final "))
    assert f"accuracy {last['ema']['top1']:.2f} %" in line
    assert f" {last['top1']:.2f} %, ema {last['ema']['top1']:.2f} %; top-5 " in final
    assert max(len(line), len(final)) <= 80


def test_an_average_that_is_turned_on_later_begins_as_the_weights(whole: Path, tmp_path: Path) -> None:
    last = whole / "checkpoints" / "last.pt"
    content = checkpoint_file.load(last)
    assert "ema" not in content
    on = ["train.epochs=3", "ema.decay=0.9", "ema.every=99", "--resume", str(last), "--out", str(tmp_path / "run")]
    assert train([*RUN, *on]) == 0
    now = checkpoint_file.load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert same_bits(now["ema"]["weights"], content["model"])
    assert not same_bits(now["model"], content["model"])


def test_a_choice_of_weights_is_taken_and_told(
    averaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = averaged / "checkpoints" / "last.pt"
    content = checkpoint_file.load(last)
    stored = {"model": content["model"], "ema": content["ema"]["weights"]}
    loaded = {kind: rt.load(last, weights=kind, device="cpu") for kind in stored}
    for kind, classifier in loaded.items():
        assert classifier.weights == kind
        assert same_bits(classifier.network.state_dict(), stored[kind])
        out = tmp_path / f"{kind}.safetensors"
        assert export(["--ckpt", str(last), "--weights", kind, "--out", str(out)]) == 0
        with safetensors.safe_open(out, "pt") as file:
            assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in stored[kind].items())
            assert file.metadata()["weights"] == kind
            assert json.loads(file.metadata()["result"]) == result_of(content["progress"]["last"], kind)
        assert f": {kind}: " in capsys.readouterr().out
    save_image(tmp_path / "a.png")
    assert predict(["--ckpt", str(last), "--weights", "ema", str(tmp_path / "a.png")]) == 0
    assert ": ema: " in capsys.readouterr().err
    fine_tuned = [*RUN, f"model.weights={last}", "optimizer.lr=1e-8", "train.max_steps=1", "--out", str(tmp_path / "f")]
    assert train(fine_tuned) == 0
    kind = best_of(content["progress"]["last"])["weights"]
    assert f"a checkpoint of resnext-train, {kind}: " in capsys.readouterr().out
    start = checkpoint_file.load(tmp_path / "f" / "checkpoints" / "last.pt")["model"]["fc.weight"]
    torch.testing.assert_close(start, stored[kind]["fc.weight"], rtol=0, atol=1e-6)


def test_weights_that_a_file_does_not_hold_are_refused(
    averaged: Path, whole: Path, tmp_path: Path, refuses: Refuses
) -> None:
    assert "best.pt holds no average" in refuses(evaluate, "--ckpt", str(whole), "--weights", "ema")
    foreign = checkpoint_file.load(whole / "checkpoints" / "last.pt")["model"]
    torch.save({"state_dict": foreign, "state_dict_ema": foreign}, tmp_path / "timm.pth")
    assert "is for files of resnext-train" in refuses(
        evaluate, "--ckpt", str(tmp_path / "timm.pth"), "--weights", "ema"
    )
    network = read_network(tmp_path / "timm.pth", load_recipe("smoke.yaml"))
    assert "state_dict_ema, which is not taken" in doubt_about(network, "")
    out = tmp_path / "e.safetensors"
    assert export(["--ckpt", str(averaged), "--weights", "ema", "--out", str(out)]) == 0
    assert "only the average" in refuses(evaluate, "--ckpt", str(out), "--weights", "model")
    with pytest.raises(ValueError, match="auto, model, ema"):
        rt.load(averaged, weights="best")
    content = checkpoint_file.load(averaged / "checkpoints" / "last.pt")
    content["ema"]["weights"]["fc.weight"] = torch.zeros(3)
    checkpoint_file.save(content, tmp_path / "odd.pt")
    assert "ema" in refuses(evaluate, "--ckpt", str(tmp_path / "odd.pt"))
