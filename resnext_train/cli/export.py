"""`resnext export`: write a network for other programs and check it by reading it back."""

from __future__ import annotations

from resnext_train.cli.export_requests import ExportRequest
from resnext_train.cli.run_command import announce
from resnext_train.errors import InputError
from resnext_train.export.exported_network import ExportedNetwork
from resnext_train.export.write_export import write_export
from resnext_train.inference.stored_network import StoredNetwork, read_network
from resnext_train.inference.weights_metadata import make_metadata, portable_recipe
from resnext_train.models.complexity import measure
from resnext_train.models.weight_export import portable_weights


def export(request: ExportRequest) -> None:
    """Write the network to all targets."""
    stored = read_network(request.checkpoint, request.recipe, weights=request.weights)
    if stored.is_ours and request.recipe is not None:
        raise InputError(f"--config is for foreign weights; {request.checkpoint} holds its own recipe")
    network = _exported(stored)
    count = sum(tensor.numel() for tensor in network.weights.values())
    for target in request.targets:
        agreement = write_export(network, target.path, target.format, target.beside)
        announce(
            f"{target.path}: {target.format}, {count:,} numbers; read back into {agreement.reader}, its logits differ "
            f"by {agreement.difference:.2g}"
        )


def _exported(stored: StoredNetwork) -> ExportedNetwork:
    """Return a stored network with its weights, and the metadata for its files."""
    recipe, outputs = portable_recipe(stored.recipe), stored.outputs
    measure(recipe.model, outputs, recipe.eval.crop)  # raises InputError for a size that it cannot take
    model, origin = stored.build(outputs)
    if not stored.is_ours:
        announce(origin)
    if stored.kind:
        announce(f"weights: {stored.path}: {stored.kind_text}")
    titles = None if stored.classes is None else stored.titles_of(stored.classes)
    metadata = make_metadata(recipe, portable_weights(model), stored.classes, titles, stored.result, stored.kind)
    return ExportedNetwork(model.eval(), recipe, metadata)
