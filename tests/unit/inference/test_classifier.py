"""Networks as objects of a program: their predictions are those of evaluation, whatever form an image has."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.io import decode_image
from torchvision.models.resnet import BasicBlock
from torchvision.transforms import v2

import resnext_train as rt
from helpers.images import save_image
from resnext_train.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = ("model.arch=resnet10", "model.blocks=[1,1,1,1]", "eval.resize=40", "eval.crop=32", "train.precision=fp32")
TITLES = tuple(f"title {i}, more" for i in range(6))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """Random weights of a small ResNet of torchvision's, as a file and as a network."""
    torch.manual_seed(0)
    network = torchvision.models.resnet.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=6).eval()
    path = tmp_path_factory.mktemp("foreign") / "w.pth"
    torch.save(network.state_dict(), path)
    return path, network


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [save_image(tmp_path / f"{i}.{kind}", (60 + 9 * i, 70 - 5 * i), i) for i, kind in enumerate(("JPEG", "png"))]


def load(path: Path, *overrides: str, **options: object) -> rt.Classifier:
    return rt.load(path, recipe="resnet18", overrides=[*SMALL, *overrides], **options)  # type: ignore[arg-type]


def pixels(path: Path, *crops: v2.Transform) -> Tensor:
    steps = v2.Compose([v2.Resize(40, v2.InterpolationMode.BICUBIC), *(crops or (v2.CenterCrop(32),))])
    views: Tensor = torch.stack(tuple(v) if isinstance(v := steps(decode_image(str(path))), tuple) else (v,))
    return views


def normalised(views: Tensor) -> Tensor:
    result: Tensor = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])(views)
    return result


def probabilities(network: nn.Module, views: Tensor) -> Tensor:
    with torch.no_grad():
        averaged: Tensor = network(normalised(views)).double().softmax(1).mean(0)
    return averaged


def check(prediction: rt.Prediction, expected: Tensor, top: int) -> None:
    best = expected.sort(descending=True)
    assert prediction.classes == tuple(map(str, best.indices.tolist()))[:top]
    assert prediction.scores == pytest.approx(best.values.tolist()[:top], rel=1e-5)


def test_predictions_are_those_of_torchvision(foreign: tuple[Path, nn.Module], files: list[Path]) -> None:
    path, network = foreign
    classifier = load(path)
    assert classifier.classes == tuple("012345")
    assert classifier.titles is None
    found = classifier.predict(files, top=3)
    for file, prediction in zip(files, found, strict=True):
        check(prediction, probabilities(network, pixels(file)), 3)
        assert torch.equal(classifier.views(file)[0], pixels(file)[0])
        torch.testing.assert_close(classifier.preprocess(file), normalised(pixels(file)), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        logits = network(normalised(pixels(files[0])))
        torch.testing.assert_close(classifier(classifier.preprocess(files[0])), logits, rtol=1e-4, atol=1e-4)


def test_views_are_averaged_as_the_recipe_says(foreign: tuple[Path, nn.Module], files: list[Path]) -> None:
    path, network = foreign
    classifier = load(path, "eval.protocol=ten_crop")
    crops = pixels(files[0], v2.FiveCrop(32))
    check(classifier.predict(files)[0], probabilities(network, torch.cat((crops, crops.flip(-1)))), 5)
    assert classifier.preprocess(files[0]).shape == (10, 3, 32, 32)
    several = load(path, "eval.protocol=multi_scale", "eval.scales=[32, 40]")
    assert [v.shape[1] for v in several.views(files[0])] == [37, 46], "60 × 70 pixels, cut off as torchvision does"
    with pytest.raises(InputError, match="multi_scale"):
        several.preprocess(files[0])
    assert len(several.predict(files)) == 2


def test_all_forms_of_an_image_give_the_same(foreign: tuple[Path, nn.Module], files: list[Path]) -> None:
    classifier = load(foreign[0])
    gray = save_gray(files[0].with_name("gray.png"))
    for file in (*files, gray):
        expected = classifier.predict(file)
        assert isinstance(expected, rt.Prediction)
        with Image.open(file) as image:
            forms = [str(file), image, image.copy(), *((np.asarray(image),) if file != gray else ())]
            predictions = classifier.predict(forms)
        if file != gray:
            tensor = decode_image(str(file))
            array = np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
            array.setflags(write=False)
            predictions += classifier.predict([tensor, array, tensor.flip(-1).flip(-1)], batch_size=1)
            assert classifier.predict(tensor.unsqueeze(0)) == [expected]
        if file == gray:
            predictions[2:] = []  # a copy has forgotten that it was a PNG, which decides how 16 bits become 8
        for prediction in predictions:
            assert prediction.classes == expected.classes
            assert prediction.scores == pytest.approx(expected.scores, rel=1e-6)


def save_gray(path: Path) -> Path:
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(levels).save(path)
    return path


def test_turned_images_are_not_turned_back(foreign: tuple[Path, nn.Module], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save_image(tmp_path / "turned.JPEG", (60, 80), 1, exif=exif)
    plain = save_image(tmp_path / "plain.JPEG", (60, 80), 1)
    classifier = load(foreign[0])
    expected = classifier.predict(plain)
    with Image.open(turned) as image:
        predictions = classifier.predict([turned, image])
    assert [p.classes for p in predictions] == [expected.classes] * 2
    assert all(p.scores == pytest.approx(expected.scores, rel=1e-6) for p in predictions)


def test_predicting_leaves_a_network_that_is_being_trained_as_it_is(
    foreign: tuple[Path, nn.Module], files: list[Path]
) -> None:
    classifier = load(foreign[0])
    assert not classifier.training
    before = classifier.predict(files)
    classifier.train()
    classifier.network.get_submodule("bn1").eval()
    modes = [part.training for part in classifier.modules()]
    state = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    assert classifier.predict(files) == before
    assert [part.training for part in classifier.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in classifier.state_dict().items())
    loss = nn.functional.cross_entropy(classifier(torch.rand(4, 3, 32, 32)), torch.arange(4))
    loss.backward()
    torch.optim.SGD(classifier.parameters(), 0.1).step()
    assert copy.deepcopy(classifier).predict(files) == classifier.predict(files) != before


def test_weights_that_change_change_predictions(foreign: tuple[Path, nn.Module], files: list[Path]) -> None:
    """predict keeps a form of the network for evaluation, which must not outlive its weights."""
    classifier = load(foreign[0])
    before = classifier.predict(files[0])
    assert classifier.predict(files[0]) == before
    with torch.no_grad():
        classifier.network.get_parameter("fc.bias")[3] += 50
    assert classifier.predict(files[0]).scores[0] == pytest.approx(1)
    classifier.load_state_dict(load(foreign[0]).state_dict())
    assert classifier.predict(files[0]) == before


def test_what_is_no_image_is_refused(foreign: tuple[Path, nn.Module], files: list[Path]) -> None:
    classifier = load(foreign[0])
    (bad := files[0].with_name("bad.jpg")).write_bytes(b"no image")
    for image, told in (
        (bad, str(bad)),
        (files[0].with_name("none.jpg"), "none.jpg"),
        (torch.zeros(3, 40, 40), "float32"),
        (torch.zeros(40, 40, 3, dtype=torch.uint8), r"\(40, 40, 3\)"),
        (np.zeros((40, 40), np.uint8), r"\(40, 40\)"),
        (torch.zeros(3, 0, 40, dtype=torch.uint8), r"\(3, 0, 40\)"),
        (torch.zeros(3, 1, 400, dtype=torch.uint8), "400"),
        (3, "int"),
    ):
        with pytest.raises(InputError, match=told):
            classifier.predict([files[0], image])  # type: ignore[list-item]
    with pytest.raises(InputError, match="image 1 "):
        classifier.predict([files[0], torch.zeros(2)], batch_size=1)
    with pytest.raises(InputError):
        classifier.predict(files, top=0)
    assert classifier.predict([]) == []


def test_classes_and_titles(foreign: tuple[Path, nn.Module], files: list[Path], tmp_path: Path) -> None:
    path, network = foreign
    (tmp_path / "six.txt").write_text("\n".join("abcdef"))
    (tmp_path / "some.txt").write_text("e\nb")
    (tmp_path / "titles.txt").write_text("\n".join(map("\t".join, zip("abcdef", TITLES, strict=True))))
    overrides = [f"eval.classes={tmp_path / 'some.txt'}", f"data.titles={tmp_path / 'titles.txt'}"]
    classifier = load(path, *overrides, classes=tmp_path / "six.txt")
    assert classifier.classes == tuple("abcdef")
    prediction = classifier.predict(files[0])
    with torch.no_grad():
        both = network(normalised(pixels(files[0])))[0, [1, 4]].double().softmax(0)
    assert dict(zip(prediction.classes, prediction.scores, strict=True)) == pytest.approx(
        {"b": both[0].item(), "e": both[1].item()}, rel=1e-5
    )
    assert prediction.titles is not None
    assert dict(zip(prediction.classes, prediction.titles, strict=True)) == {"b": TITLES[1], "e": TITLES[4]}
    assert load(path, classes=list("uvwxyz")).predict(files[0], top=1).classes[0] in "uvwxyz"
    for classes in (list("uvwxy"), tmp_path / "some.txt", tmp_path / "none.txt"):
        with pytest.raises(InputError):
            load(path, classes=classes)


def test_loading(whole: Path, foreign: tuple[Path, nn.Module], files: list[Path]) -> None:
    folder, checkpoint = rt.load(whole), rt.load(str(whole / "checkpoints" / "best.pt"), device="cpu")
    assert folder.classes == ("class_0000", "class_0001", "class_0002", "class_0003")
    assert folder.predict(files) == checkpoint.predict(files)
    assert folder.recipe == rt.Recipe.load(whole / "recipe.yaml")
    other = rt.load(whole, recipe=rt.Recipe.load("smoke", "eval.crop=24", "model.arch=resnet50"))
    assert other.preprocess(files[0]).shape[2:] == (24, 24)
    assert other.recipe.model == folder.recipe.model
    for wrong in (
        {"path": whole / "none.pt"},
        {"path": foreign[0]},
        {"path": whole, "device": "gpu"},
        {"path": whole, "classes": ["a"]},
        {"path": whole, "overrides": ["eval.crops=1"]},
        {"path": foreign[0], "recipe": "resnet19"},
    ):
        with pytest.raises(InputError):
            rt.load(**wrong)  # type: ignore[arg-type]


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, resnext_train as rt\n"
        "assert dir(rt) == rt.__all__ == sorted(rt.__all__)\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not hasattr(rt, 'nothing')\n"
        "rt.Recipe, rt.Prediction\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    assert set(rt.__all__) == {"Classifier", "Prediction", "Recipe", "__version__", "evaluate", "load", "train"}
    assert all(getattr(rt, name) is not None for name in rt.__all__)
