"""Protocols against a slow implementation: torchvision's network and transforms, one image and one view at a time."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.io import decode_image
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from helpers.commands import Refuses, evaluate, train
from helpers.images import save_image
from helpers.ranks import exit_codes, run_command, start_command
from helpers.runs import RUN
from helpers.shared import made_once
from resnext_train.checkpoint import checkpoint_file
from resnext_train.data.eval_batches import EvalBatches

CLASSES = ["ant", "bee", "cow", "doe", "elk", "fox"]
SHAPES = [(60, 45), (45, 60), (60, 45), (48, 48), (90, 40), (60, 45), (41, 70), (60, 45), (45, 60), (48, 48), (60, 46)]
"""Width and height of each image: several have the same, one of them is that of no other."""
RECIPE = """
model: {arch: resnext14_4x4d, num_classes: 6, width: 0.25}
data: {workers: 0}
train: {precision: fp32}
eval: {resize: 40, crop: 32, batch_size: 4, scales: [32, 44, 51]}
"""
SCALES = (32, 44, 51)


def network(seed: int) -> ResNet:
    """A network of other people with weights and statistics that matter."""
    torch.manual_seed(seed)
    model = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=6, groups=4, width_per_group=4)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(32, 3, 40, 40))
    return model.eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images of six classes, a recipe, and the weights of two networks."""

    def make(root: Path) -> None:
        for i, size in enumerate(SHAPES):
            save_image(root / "val" / CLASSES[i % 6] / f"{i:02d}.png", size, seed=i)
        (root / "r.yaml").write_text(RECIPE.replace(", width: 0.25", ""))
        for seed in (0, 1):
            torch.save(network(seed).state_dict(), root / f"{seed}.pth")

    return made_once(tmp_path_factory, "protocols", make)


def views(image: Tensor, protocol: str) -> list[Tensor]:
    """What the protocol's name means, in torchvision's words."""
    bicubic = v2.InterpolationMode.BICUBIC
    resized = v2.Resize(40, bicubic)(image)
    if protocol == "ten_crop":
        return list(v2.TenCrop(32)(resized))
    if protocol == "full":
        return [resized]
    if protocol == "multi_scale":
        scaled = [v2.Resize(side, bicubic)(image) for side in SCALES]
        return [view for one in scaled for view in (one, F.horizontal_flip(one))]
    crop = v2.CenterCrop(32)(resized)
    return [crop] if protocol == "center" else [crop, F.horizontal_flip(crop)]


def probabilities(model: ResNet, path: Path, protocol: str, average: str = "softmax") -> Tensor:
    normalise = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = decode_image(str(path))
    with torch.no_grad():
        logits = torch.stack([model(normalise(view.float() / 255)[None])[0] for view in views(image, protocol)])
    if average == "logits":
        return logits.double().mean(0).softmax(0)
    return logits.double().softmax(1).mean(0)


def files(root: Path) -> list[Path]:
    return sorted((root / "val").rglob("*.png"))


def arguments(root: Path, *weights: int) -> list[str]:
    networks = [word for seed in weights for word in ("--ckpt", str(root / f"{seed}.pth"))]
    return [*networks, "--config", str(root / "r.yaml"), f"data.root={root}"]


def result(folder: Path, *words: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The result of `resnext eval`, and the lines of its predictions."""
    outputs = ["--json", str(folder / "result.json"), "--predictions", str(folder / "p.csv")]
    assert evaluate([*words, *outputs]) == 0
    with (folder / "p.csv").open(newline="") as file:
        return json.loads((folder / "result.json").read_text()), list(csv.DictReader(file))


def expect(got: dict[str, Any], lines: list[dict[str, str]], scores: list[Tensor], paths: list[Path]) -> None:
    """Compare counts, losses and scores with `scores` of an independent implementation."""
    labels = [CLASSES.index(path.parent.name) for path in paths]
    orders = [one.argsort(descending=True, stable=True).tolist() for one in scores]
    assert got["count"] == len(paths)
    assert got["top1_correct"] == sum(o[0] == label for o, label in zip(orders, labels, strict=True))
    assert got["top5_correct"] == sum(label in o[:5] for o, label in zip(orders, labels, strict=True))
    losses = [-math.log(one[label]) for one, label in zip(scores, labels, strict=True)]
    assert got["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    for line, path, one, order, label in zip(lines, paths, scores, orders, labels, strict=True):
        assert (line["path"], line["label"], int(line["rank"])) == (str(path), CLASSES[label], order.index(label) + 1)
        assert [line[f"class{k + 1}"] for k in range(5)] == [CLASSES[c] for c in order[:5]]
        assert [float(line[f"score{k + 1}"]) for k in range(5)] == pytest.approx(one[order[:5]].tolist(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "average"),
    [
        ("center", "softmax"),
        ("center_flip", "softmax"),
        ("ten_crop", "softmax"),
        ("ten_crop", "logits"),
        ("multi_scale", "softmax"),
        ("full", "softmax"),
    ],
)
def test_a_protocol_scores_as_its_views_one_by_one(protocol: str, average: str, root: Path, tmp_path: Path) -> None:
    words = [*arguments(root, 0), "--protocol", protocol, f"eval.average={average}"]
    got, lines = result(tmp_path, *words)
    expect(got, lines, [probabilities(network(0), path, protocol, average) for path in files(root)], files(root))


@pytest.mark.slow
def test_an_ensemble_averages_its_networks_and_counts_each_alone(root: Path, tmp_path: Path) -> None:
    got, lines = result(tmp_path, *arguments(root, 0, 1), "eval.protocol=center_flip")
    each = [[probabilities(network(seed), path, "center_flip") for path in files(root)] for seed in (0, 1)]
    expect(got, lines, [(a + b) / 2 for a, b in zip(*each, strict=True)], files(root))
    for member, seed, scores in zip(got["members"], (0, 1), each, strict=True):
        alone, alone_lines = result(tmp_path, *arguments(root, seed), "eval.protocol=center_flip")
        expect(alone, alone_lines, scores, files(root))
        assert member["checkpoint"] == str(root / f"{seed}.pth")
        assert {key: member[key] for key in ("count", "top1_correct", "top5_correct", "loss")} == {
            key: alone[key] for key in ("count", "top1_correct", "top5_correct", "loss")
        }


def test_several_labels_per_image(root: Path, tmp_path: Path) -> None:
    """Right if the prediction is among the labels; images without any are left out and counted."""
    labels = {path.name: sorted({path.parent.name, "fox"}) for path in files(root)}
    labels["03.png"] = []
    labels["04.png"] = ["ant", "cow", "doe"]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    got, lines = result(tmp_path, *arguments(root, 0), f"eval.labels={tmp_path / 'labels.json'}")
    scored = {path.name: probabilities(network(0), path, "center") for path in files(root) if labels[path.name]}
    best = {name: max(labels[name], key=lambda c: scored[name][CLASSES.index(c)].item()) for name in scored}
    predicted = {name: CLASSES[int(one.argmax())] for name, one in scored.items()}
    assert (got["count"], got["unlabelled"]) == (10, 1)
    assert got["top1_correct"] == sum(predicted[name] in labels[name] for name in scored)
    assert got["top1_correct"] > sum(predicted[p.name] == p.parent.name for p in files(root) if p.name in scored)
    assert got["loss"] == pytest.approx(
        sum(-math.log(scored[name][CLASSES.index(best[name])]) for name in scored) / 10, abs=1e-5
    )
    assert {Path(line["path"]).name: sorted(line["label"].split(";")) for line in lines} == {
        n: labels[n] for n in scored
    }


@pytest.mark.slow
def test_every_output_is_the_same_on_one_two_and_three_processes(root: Path, tmp_path: Path) -> None:
    """Eleven images: an odd number, which no number of processes divides."""
    written: list[dict[str, bytes]] = []
    for processes in (1, 2, 3):
        out = tmp_path / str(processes)
        words = [*arguments(root, 0, 1), "--protocol", "multi_scale", "--out", str(out)]
        run_command(evaluate, processes, *words)
        content = {path.name: path.read_bytes() for path in out.iterdir()}
        numbers = json.loads(content.pop("result.json"))
        del numbers["images_per_s"]
        written.append({**content, "result": json.dumps(numbers).encode()})
    assert {"predictions.csv", "classes.csv", "confusion.csv", "mistakes.png"} < written[0].keys()
    assert written[0] == written[1] == written[2]


def test_networks_with_other_views_or_classes_make_no_ensemble(root: Path, tmp_path: Path, refuses: Refuses) -> None:
    model = network(2)
    model.fc = torch.nn.Linear(model.fc.in_features, 5)
    torch.save(model.state_dict(), tmp_path / "five.pth")
    words = ["--ckpt", str(tmp_path / "five.pth"), *arguments(root, 0)]
    assert " 5 classes" in refuses(evaluate, *words)


def test_a_crop_larger_than_the_resized_image_is_refused_where_there_are_crops(root: Path, refuses: Refuses) -> None:
    assert "eval.crop (50)" in refuses(evaluate, *arguments(root, 0), "eval.crop=50")
    assert evaluate([*arguments(root, 0), "eval.resize=40", "eval.crop=50", "--protocol", "full"]) == 0


def test_an_ensemble_finds_each_class_by_its_name(tmp_path: Path) -> None:
    """Two checkpoints of the same network, whose outputs are in another order."""
    assert train([*RUN, "--out", str(tmp_path / "run"), "train.epochs=1"]) == 0
    first, second = tmp_path / "run" / "checkpoints" / "last.pt", tmp_path / "other.pt"
    content = checkpoint_file.load(first)
    order = [2, 0, 3, 1]
    content["classes"] = [content["classes"][i] for i in order]
    for name in ("fc.weight", "fc.bias"):
        content["model"][name] = content["model"][name][order].clone()
    checkpoint_file.save(content, second)
    alone, alone_lines = result(tmp_path, "--ckpt", str(first))
    both, lines = result(tmp_path, "--ckpt", str(first), "--ckpt", str(second))
    assert 0 < alone["top1_correct"] < alone["count"]
    for member in both["members"]:
        assert member["top1_correct"] == alone["top1_correct"]
    assert both["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert [line["class1"] for line in lines] == [line["class1"] for line in alone_lines]


def test_two_outputs_in_one_file_are_refused_before_the_evaluation(
    root: Path, tmp_path: Path, refuses: Refuses
) -> None:
    for outputs in (
        ["--json", "x.csv", "--predictions", "x.csv"],
        ["--out", "o", "--predictions", "o/predictions.csv"],
        ["--out", "o", "--json", "./o/result.json"],
    ):
        there = [word if word.startswith("--") else str(tmp_path / word) for word in outputs]
        (tmp_path / "o").mkdir(exist_ok=True)
        assert "two outputs" in refuses(evaluate, *arguments(root, 0), *there)
    assert not list((tmp_path / "o").iterdir())


def send_at_the_second_batch(number: signal.Signals) -> None:
    """Let this process, which is no test's, receive a signal while it evaluates."""

    def loaded(self: EvalBatches, indices: Any) -> Any:
        if indices.images[0] > 0:
            os.kill(os.getpid(), number)
        return read(self, indices)

    read = EvalBatches.__getitem__
    pytest.MonkeyPatch().setattr(EvalBatches, "__getitem__", loaded)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_evaluation_leaves_nothing(number: signal.Signals, root: Path, tmp_path: Path) -> None:
    words = [*arguments(root, 0), "--out", str(tmp_path / "o"), "--predictions", str(tmp_path / "p.csv")]
    prepare = partial(send_at_the_second_batch, number)
    assert exit_codes(start_command(evaluate, 1, *words, prepare=prepare)) == [128 + number]
    assert not list(tmp_path.glob("*p.csv*"))
    assert not list((tmp_path / "o").iterdir())
