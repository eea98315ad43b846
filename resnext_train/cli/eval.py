"""`resnext eval`: evaluate checkpoints."""

from __future__ import annotations

from typing import Any

from resnext_train.cli.json_file import write_json
from resnext_train.cli.run_command import announce
from resnext_train.distributed.dist_context import connect
from resnext_train.inference.evaluate_networks import evaluate_networks
from resnext_train.inference.evaluation_request import EvaluationRequest


def evaluate(request: EvaluationRequest) -> None:
    """Evaluate on all ranks, and print the result on rank 0."""
    with connect(request.patience_seconds) as context:
        result = evaluate_networks(request, context)
    if context.is_main:
        _report(result, request.json)


def _report(result: dict[str, Any], json_file: str | None) -> None:
    announce(f"{'network':15s}{result['arch']}, {result['checkpoint']}")
    announce(f"{'images':15s}{result['images']}, {result['data']}")
    announce(f"{'evaluation':15s}{result['protocol']}")
    for name, key in (("accuracy", "top1"), ("top-5 accuracy", "top5")):
        print(f"{name:15s}{result[key]:.3f} %  ({result[f'{key}_correct']} of {result['count']})")
    print(f"{'loss':15s}{result['loss']:.4f}   {result['images_per_s']:.0f} images/s")
    if result["unreadable"]:
        print(f"images left out, because they could not be read: {result['unreadable']}")
    if json_file:
        write_json(json_file, result, indent=2)
