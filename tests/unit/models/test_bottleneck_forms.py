"""The three forms of the bottleneck are one function; so is a two-layer block with cardinality and a wider one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnext_train.config import ModelSection
from resnext_train.models.architecture import Form
from resnext_train.models.blocks import BlockShape
from resnext_train.models.bottleneck_forms import FORMS, convert_form
from resnext_train.models.build_model import build_model

FORM_NAMES: tuple[Form, ...] = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # many small convolutions: a second thread only costs


def randomise(model: nn.Module) -> dict[str, Tensor]:
    """Random weights and running statistics in fp64, so that nothing is equal by being 0 or 1."""
    g = torch.Generator().manual_seed(5)
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        elif tensor.ndim > 1:
            weights[name] = torch.randn(tensor.shape, generator=g, dtype=torch.float64) / tensor[0].numel() ** 0.5
        else:
            weights[name] = torch.rand(tensor.shape, generator=g, dtype=torch.float64) + 0.5
    return weights


def loaded(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """The model with copies of weights that a conversion may share between forms."""
    model = model.double()
    model.load_state_dict({k: v.clone() for k, v in weights.items()})
    return model


def responses(model: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs in evaluation and in training with the gradient of the images; and the parameters' gradients."""
    images = images.clone().requires_grad_()
    evaluated = model.eval()(images)
    trained = model.train()(images)
    (evaluated.square().mean() + (trained**3).mean()).backward()
    assert images.grad is not None
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(model.parameters()))
    return {"evaluated": evaluated.detach(), "trained": trained.detach(), "images": images.grad}, gradients


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).abs().max()) for k in one)


@pytest.mark.parametrize(
    ("cardinality", "base_width", "stride"), [(1, 8, 1), (2, 5, 2), (4, 3, 1), (8, 4, 2), (32, 4, 1), (32, 4, 2)]
)
def test_the_forms_of_a_block_are_equal(cardinality: int, base_width: int, stride: int) -> None:
    """ResNeXt paper, Figure 3: outputs and all gradients, in training and evaluation, and BN's statistics."""
    shape = BlockShape(24, cardinality * base_width, 32, stride, cardinality)
    reference = FORMS["c"](shape)
    weights = randomise(reference)
    images = torch.randn(3, 24, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    expected, gradients = responses(loaded(reference, weights), images)
    for form in ("a", "b"):
        block = loaded(FORMS[form](shape), convert_form(weights, form, cardinality))
        outputs, own = responses(block, images)
        assert largest_difference(outputs, expected) < 1e-10
        assert largest_difference(convert_form(own, "c", cardinality), gradients) < 1e-10
        statistics = convert_form(block.state_dict(), "c", cardinality)
        assert largest_difference(statistics, dict(reference.state_dict())) < 1e-10


@pytest.mark.slow
def test_the_forms_of_a_network_are_equal() -> None:
    """The paper's widths, 32×4d, in all four stages."""
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    models = {f: build_model(ModelSection(arch="resnext14_32x4d", form=f), 10) for f in FORM_NAMES}
    weights = randomise(models["c"])
    results = {
        form: responses(loaded(model, convert_form(weights, form, 32)), images) for form, model in models.items()
    }
    for form in ("a", "b"):
        assert largest_difference(results[form][0], results["c"][0]) < 1e-10
        assert largest_difference(convert_form(results[form][1], "c", 32), results["c"][1]) < 1e-10


@pytest.mark.parametrize("source", FORM_NAMES)
@pytest.mark.parametrize("target", FORM_NAMES)
def test_weights_move_between_any_two_forms(source: Form, target: Form) -> None:
    weights = build_model(ModelSection(arch="resnext14_8x2d", form=source), 5, seed=3).state_dict()
    there = convert_form(weights, target, 8)
    other = build_model(ModelSection(arch="resnext14_8x2d", form=target), 5, seed=4)
    assert set(there) == set(other.state_dict())
    other.load_state_dict({k: v.clone() for k, v in there.items()})
    back = convert_form(other.state_dict(), source, 8)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[k], weights[k]) for k in weights)


def test_paths_are_joined_by_number_whatever_their_order_in_the_file() -> None:
    weights = build_model(ModelSection(arch="resnext14_16x2d", form="a"), 5).state_dict()
    by_name = {k: weights[k] for k in sorted(weights)}  # as safetensors stores them: paths.10 before paths.2
    assert list(by_name) != list(weights)
    expected = convert_form(weights, "c", 16)
    assert all(torch.equal(v, expected[k]) for k, v in convert_form(by_name, "c", 16).items())


def test_all_forms_start_from_the_same_weights() -> None:
    """One seed, one function: the narrow convolutions of forms a and b must not get the larger spread of their fan."""
    models = {f: build_model(ModelSection(arch="resnext14_8x2d", form=f), 5, seed=3) for f in FORM_NAMES}
    expected = models["c"].state_dict()
    for form in ("a", "b"):
        own = convert_form(models[form].state_dict(), "c", 8)
        assert all(torch.equal(own[k], expected[k]) for k in expected)
        storages = {t.untyped_storage().data_ptr() for t in models[form].state_dict().values()}
        assert len(storages) == len(models[form].state_dict()), "no two parameters share memory"


@pytest.mark.parametrize(("cardinality", "base_width"), [(2, 6), (8, 3), (32, 4)])
def test_two_layer_blocks_gain_nothing_from_cardinality(cardinality: int, base_width: int) -> None:
    """ResNeXt paper, Figure 4: C paths of 3×3 to d and 3×3 to the output, summed, are one block of width C·d.

    The first layers side by side are one convolution to C·d channels, dense in its input; the sum of the second ones is
    one convolution that is dense in its C·d inputs. So no groups are left, unlike in a bottleneck, whose middle layer
    stays apart.
    """
    g = torch.Generator().manual_seed(8)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    first = [draw(base_width, 16, 3, 3) for _ in range(cardinality)]
    second = [draw(24, base_width, 3, 3) for _ in range(cardinality)]
    scale, shift = draw(cardinality, base_width), draw(cardinality, base_width)
    x = draw(4, 16, 7, 7)

    def layer(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.relu(F.batch_norm(F.conv2d(x, weight, padding=1), None, None, scale, shift, training=True))

    paths = [F.conv2d(layer(x, first[i], scale[i], shift[i]), second[i], padding=1) for i in range(cardinality)]
    wide = layer(x, torch.cat(first), scale.flatten(), shift.flatten())
    dense = F.conv2d(wide, torch.cat(second, 1), padding=1)
    assert (torch.stack(paths).sum(0) - dense).abs().max() < 1e-10
