"""What a run was made with and on, for its start event and summary.json."""

from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path
from typing import Any

import torch

from resnext_train.models.architecture import title_of
from resnext_train.models.complexity import measure
from resnext_train.run_dir.environment import environment
from resnext_train.training.setup import Setup


def run_facts(setup: Setup) -> dict[str, Any]:
    """Return host, hardware, versions, commit, command, digest of recipe.yaml, network and numbers of images."""
    recipe, context = setup.recipe, setup.context
    size = measure(recipe.model, setup.num_classes, recipe.eval.crop)
    return {
        **environment(),
        "hardware": hardware(context.device),
        "cores": context.cores.total,
        "threads": torch.get_num_threads(),
        "world_size": context.world_size,
        "precision": setup.precision.name,
        "recipe_sha256": hashlib.sha256(recipe.to_yaml().encode()).hexdigest(),
        "network": {
            "title": title_of(recipe.model),
            "parameters": size.parameters,
            "multiply_adds": size.multiply_adds,
            "size": size.size,
        },
        "classes": setup.num_classes,
        "train_images": len(setup.splits.train),
        "val_images": len(setup.evaluation.images),
    }


def hardware(device: torch.device) -> str:
    """Return the name of the GPU, or of the CPU's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:  # no Linux
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
