"""Write an ONNX file: the network as a graph that other runtimes compute, for any number of images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnext_train.errors import InputError
from resnext_train.export.exported_network import TOLERANCE, Agreement, ExportedNetwork
from resnext_train.export.graph_capture import BATCH, graph_captured
from resnext_train.inference.weights_metadata import as_strings
from resnext_train.models.weight_export import random_images

_LARGEST = (1 << 31) - (1 << 20)
"""Bytes of weights that one file of ONNX, a protocol buffer of at most 2 GiB, holds beside the graph."""


def write_onnx(network: ExportedNetwork, path: Path) -> Agreement:
    """Write the graph from "images", float32 (batch, 3, H, W), to "logits", and run it by ONNX Runtime.

    Raises:
        InputError: the network has operations that ONNX has not, or is too large for one file.
    """
    import onnx

    if sum(t.numel() * t.element_size() for t in network.weights.values()) > _LARGEST:
        raise InputError("ONNX holds at most 2 GB in one file; export these weights as .safetensors")
    proto = _graph(network)
    for key, value in as_strings({**network.metadata, "input_name": "images", "output_name": "logits"}).items():
        proto.metadata_props.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    with graph_captured("ONNX"):
        onnx.checker.check_model(str(path), full_check=True)
        difference = network.compare_graph(_runtime(path))
    return Agreement("ONNX Runtime", difference, TOLERANCE)


def _graph(network: ExportedNetwork) -> Any:
    """Return the network as a ModelProto, without notes on the source code that it came from."""
    with graph_captured("ONNX"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own libraries; what matters is compared
        program = torch.onnx.export(
            network.graph,
            (random_images(2, network.size),),
            dynamo=True,
            dynamic_shapes=({0: BATCH},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    proto: Any = program.model_proto
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info, proto.graph):
        del part.metadata_props[:]  # stack traces, with the paths of this machine
    return proto


def _runtime(path: Path) -> Any:
    """Return a function that computes logits on the CPU by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return run
