"""Write a .pt2 file: the network as a graph that torch.export.load opens without this package."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from resnext_train.export.exported_network import TOLERANCE, Agreement, ExportedNetwork
from resnext_train.export.graph_capture import BATCH, graph_captured
from resnext_train.inference.weights_metadata import to_json
from resnext_train.models.weight_export import random_images

METADATA = "metadata.json"
"""Name of the extra file that holds the metadata."""


def write_torch_export(network: ExportedNetwork, path: Path) -> Agreement:
    """Write the graph from float32 (batch, 3, H, W) to logits, and load it again.

    Raises:
        InputError: torch cannot capture the network.
    """
    with graph_captured("torch.export"):
        program = torch.export.export(network.graph, (random_images(2, network.size),), dynamic_shapes=({0: BATCH},))
    for module in (part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)):
        for node in module.graph.nodes:
            node.meta.pop("stack_trace", None)  # with the paths of this machine
    buffer = io.BytesIO()  # so that a full disk raises OSError, which torch's own writer does not
    torch.export.save(program, buffer, extra_files={METADATA: to_json(network.metadata, indent=2)})
    path.write_bytes(buffer.getbuffer())
    loaded = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return Agreement("torch.export", network.compare_graph(loaded), TOLERANCE)
