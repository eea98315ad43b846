"""Write a folder that timm loads, as it lies on the Hugging Face hub: config.json, model.safetensors, README.md.

`config.json` follows timm's own convention (timm/models/_hub.py: save_config_for_hf).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from torch import nn

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpoint_path import EXPORTED_WEIGHTS
from resnext_train.export.exported_network import Agreement, ExportedNetwork
from resnext_train.export.model_card import model_card
from resnext_train.inference.weights_metadata import as_strings
from resnext_train.models.timm_twin import TimmTwin, timm_twin
from resnext_train.models.weight_export import TOLERANCE, compare_networks

WEIGHTS = EXPORTED_WEIGHTS
RECIPE = "recipe.yaml"


def write_hf(network: ExportedNetwork, folder: Path) -> Agreement:
    """Write the folder, let timm build the network by its config.json, and load the weights.

    Raises:
        InputError: timm has no such network.
    """
    import timm

    twin = timm_twin(network.recipe.model, network.outputs)
    built = timm.create_model(twin.architecture, num_classes=network.outputs, **twin.arguments)
    folder.mkdir()
    _write_text(folder / "config.json", json.dumps(_config(network, twin, built), indent=2) + "\n")
    _write_text(folder / "README.md", model_card(network, twin))
    _write_text(folder / RECIPE, network.recipe.to_yaml())
    checkpoint_file.save_weights(network.weights, folder / WEIGHTS, as_strings(network.metadata))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    theirs = timm.create_model(
        config["architecture"],
        num_classes=config["num_classes"],
        checkpoint_path=str(folder / WEIGHTS),
        **config.get("model_args", {}),
    )
    return Agreement(f"timm's {twin.architecture}", compare_networks(network.model, theirs, network.size), TOLERANCE)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _config(network: ExportedNetwork, twin: TimmTwin, built: nn.Module) -> dict[str, Any]:
    """Return timm's config.json; `built` is timm's network, from which what depends on its class is taken."""
    metadata = network.metadata
    cfg: dict[str, Any] = built.pretrained_cfg  # type: ignore[assignment]
    size = (3, network.size, network.size)
    config = {
        "architecture": twin.architecture,
        "num_classes": network.outputs,
        "num_features": built.num_features,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": size,
            "fixed_input_size": cfg.get("fixed_input_size", False),
            "interpolation": metadata["interpolation"],
            "crop_pct": crop_share(metadata["resize"], metadata["crop"]),
            "crop_mode": "center",
            "mean": metadata["mean"],
            "std": metadata["std"],
            "num_classes": network.outputs,
            "pool_size": cfg.get("pool_size") if tuple(cfg.get("input_size", ())) == size else None,
            "first_conv": cfg.get("first_conv"),
            "classifier": cfg.get("classifier"),
        },
    }
    if twin.arguments:
        config["model_args"] = twin.arguments
    if metadata["classes"] is not None:
        config["label_names"] = metadata["classes"]
    if metadata["titles"] is not None:
        config["label_descriptions"] = dict(zip(metadata["classes"], metadata["titles"], strict=True))
    return config


def crop_share(resize: int, crop: int) -> float:
    """Return timm's `crop_pct`, from which it computes the short side as floor(crop / crop_pct): exactly `resize`."""
    share = crop / resize
    while math.floor(crop / share) < resize:
        share = math.nextafter(share, 0)
    return share
