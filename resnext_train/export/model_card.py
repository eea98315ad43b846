"""The model card of an exported folder: what the network is, what it reached, how it was trained, how to load it."""

from __future__ import annotations

from typing import Any

from resnext_train.config import (
    Entry,
    Recipe,
    counted_deviations,
    deviation_sentence,
    deviations,
    find_entry,
    reference_of,
)
from resnext_train.export.exported_network import ExportedNetwork
from resnext_train.models.complexity import measure
from resnext_train.models.timm_twin import TimmTwin


def model_card(network: ExportedNetwork, twin: TimmTwin) -> str:
    """Return the card in Markdown, with the front matter that the Hugging Face hub reads."""
    metadata = network.metadata
    is_ours = metadata["classes"] is not None  # foreign weights come without; what trained them is not known
    entry = find_entry(network.recipe, network.outputs) if is_ours else None
    parts = [
        _FRONT_MATTER,
        f"# {metadata['network']}",
        _network(network),
        f"## Result\n\n{_result(metadata['result'], entry)}",
        f"## Preprocessing\n\n{_preprocessing(metadata)}",
        f"## Training\n\n{_training(network, entry) if is_ours else _FOREIGN}",
        f"## Use\n\n{_use(twin)}",
    ]
    return "\n\n".join(parts) + "\n"


_FRONT_MATTER = """---
tags:
- image-classification
- timm
library_name: timm
pipeline_tag: image-classification
# license: state yours here
---"""


_FOREIGN = (
    "These weights are of another program. `recipe.yaml` says by its sections `model`, `data` and `eval` what they are "
    "and how they are evaluated; its other sections did not train them."
)


_AVERAGED = " Its weights are the exponential moving average of those of training (section `ema` of `recipe.yaml`)."


def _network(network: ExportedNetwork) -> str:
    cost = measure(network.recipe.model, network.outputs, network.size)
    text = (
        f"An image classifier of {network.outputs:,} classes: {cost.parameters / 1e6:.2f} M parameters, "
        f"{cost.multiply_adds / 1e9:.2f} G multiply-adds for an image of {network.size} × {network.size} pixels."
    )
    return text + (_AVERAGED if network.metadata.get("weights") == "ema" else "")


def _result(result: dict[str, Any] | None, entry: Entry | None) -> str:
    lines = []
    if result is None:
        lines.append("These weights come without an evaluation.")
    else:
        for name, key in (("top-1", "top1"), ("top-5", "top5")):
            lines.append(
                f"- {name} accuracy {result[key]:.3f} %, error {100 - result[key]:.3f} % "
                f"({result[f'{key}_correct']:,} of {result['count']:,} images correct)"
            )
        if result.get("unreadable"):
            lines.append(f"- {result['unreadable']:,} images could not be read, and do not count")
    if entry and entry.result:
        source = f" ({entry.reproduces.rstrip('.')})" if entry.reproduces else ""
        lines += ["", f"Stated for the recipe{source}: {entry.result}"]
    return "\n".join(lines)


def _preprocessing(metadata: dict[str, Any]) -> str:
    mean, std = (", ".join(f"{value:g}" for value in metadata[key]) for key in ("mean", "std"))
    return (
        f"Short side to {metadata['resize']} pixels ({metadata['interpolation']}, antialiased), centre crop of "
        f"{metadata['crop']} × {metadata['crop']}; R, G, B on a scale from 0 to 1, minus ({mean}), divided by ({std})."
    )


def _training(network: ExportedNetwork, entry: Entry | None) -> str:
    metadata = network.metadata
    name = entry.name if entry else "recipe.yaml"
    known = f" It is the recipe `{entry.name}` that the package ships." if entry else ""
    versions = ", ".join(f"{library} {version}" for library, version in metadata["versions"].items())
    parts = [
        f"`recipe.yaml` is the whole recipe (SHA-256 of its JSON: `{metadata['recipe_sha256']}`).{known}",
        f"```\nresnext train --config {name} --data /path/to/images\n```",
    ]
    if listed := _deviations(entry.recipe if entry else network.recipe):
        parts.append(listed)
    return "\n\n".join([*parts, f"Exported by {versions}."])


def _deviations(recipe: Recipe) -> str:
    """List where a recipe departs from the paper or code that it names."""
    reference = reference_of(recipe)
    if reference is None:
        return ""
    found = deviations(recipe)
    items = [f"- {deviation.label}: {deviation_sentence(deviation)}" for deviation in found]
    end = ":\n\n" if found else "."
    text = f"{counted_deviations(found, reference)}{end}"
    return text[0].upper() + text[1:] + "\n".join(items)


def _use(twin: TimmTwin) -> str:
    arguments = "".join(f", {key}={value!r}" for key, value in twin.arguments.items())
    return f"""With timm 1.0.16 or later, from this folder, or from the hub as `hf-hub:USER/NAME`:

```python
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
```

With any timm, `timm.create_model("{twin.architecture}"{arguments}, num_classes=..., \
checkpoint_path="FOLDER/model.safetensors")`.

With resnext-train:

```
resnext eval --ckpt FOLDER/model.safetensors --data /path/to/images
```"""
