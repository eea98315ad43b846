"""Write bare weights, as safetensors or by torch.save."""

from __future__ import annotations

from pathlib import Path

from resnext_train.checkpoint import checkpoint_file
from resnext_train.export.exported_network import Agreement, ExportedNetwork
from resnext_train.inference.weights_metadata import as_strings
from resnext_train.models.weight_export import TOLERANCE, check_portable


def write_safetensors(network: ExportedNetwork, path: Path) -> Agreement:
    """Write weights and metadata to one file."""
    checkpoint_file.save_weights(network.weights, path, as_strings(network.metadata))
    return _checked(network, path)


def write_pth(network: ExportedNetwork, path: Path) -> Agreement:
    """Write a state dict that torch.load opens, which holds no metadata."""
    checkpoint_file.save_weights(network.weights, path, None)
    return _checked(network, path)


def _checked(network: ExportedNetwork, path: Path) -> Agreement:
    """Read the weights back into a new network."""
    weights = checkpoint_file.load_file(path)
    reader, difference = check_portable(network.model, network.recipe.model, weights, network.size)
    return Agreement(reader, difference, TOLERANCE)
