"""A copy of a network for evaluation: BatchNorm folded into the convolutions before it, where that is faster."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import fx, nn

from resnext_train.models.blocks import BlurPoolConv2d


def inference_network(model: nn.Module) -> nn.Module:
    """Return a network with the weights that `model` has now, in evaluation mode, for a few passes over the images.

    On a CPU each BN whose input is a convolution's output, and nothing else's, becomes part of that convolution
    (arXiv 1502.03167, section 3.1): its output is the same up to rounding, and a pass over memory less. The new weights
    are computed in fp64. Nothing is folded on a GPU, where this was not measured, or if a network cannot be traced.
    """
    copied = deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    if next(copied.parameters()).device.type == "cpu":
        for conv_name, bn_name in _foldable(copied):
            _fold(copied, conv_name, bn_name)
    return copied


def _foldable(model: nn.Module) -> list[tuple[str, str]]:
    """Return the names of each convolution and the BN that alone takes its output, both called once."""
    try:
        graph = _Tracer().trace(model)
    except Exception:
        return []
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    modules = dict(model.named_modules(remove_duplicate=False))
    pairs = []
    for node in graph.nodes:
        if node.op != "call_module" or type(modules[str(node.target)]) is not nn.BatchNorm2d:
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        names = str(source.target), str(node.target)
        conv, bn = (modules[name] for name in names)
        once = all(called.count(name) == 1 for name in names)
        known = type(conv) in (nn.Conv2d, BlurPoolConv2d)  # other subclasses may compute something else
        if once and known and isinstance(bn, nn.BatchNorm2d) and bn.track_running_stats:
            pairs.append(names)
    return pairs


class _Tracer(fx.Tracer):
    """Traces into everything but layers, whose calls are what is looked for."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not list(m.children())


def _fold(model: nn.Module, conv_name: str, bn_name: str) -> None:
    """Make the BN part of the convolution, and put an identity in its place."""
    conv, bn = model.get_submodule(conv_name), model.get_submodule(bn_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    with torch.no_grad():
        scale = (bn.running_var.double() + bn.eps).rsqrt()
        if bn.weight is not None:
            scale = scale * bn.weight.double()
        shift = -bn.running_mean.double() * scale
        if bn.bias is not None:
            shift = shift + bn.bias.double()
        if conv.bias is not None:
            shift = shift + conv.bias.double() * scale
        kind, layout = conv.weight.dtype, torch.channels_last if _is_channels_last(conv) else torch.contiguous_format
        weight = (conv.weight.double() * scale.view(-1, 1, 1, 1)).to(kind).contiguous(memory_format=layout)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = nn.Parameter(shift.to(kind), requires_grad=False)
    parent, _, name = bn_name.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())


def _is_channels_last(conv: nn.Conv2d) -> bool:
    return conv.weight.is_contiguous(memory_format=torch.channels_last)
