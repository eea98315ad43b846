"""`resnext eval`: evaluate checkpoints."""

from __future__ import annotations

from resnext_train.checkpoint.stored_weights import KINDS
from resnext_train.cli.run_command import announce
from resnext_train.distributed.dist_context import connect
from resnext_train.inference.evaluate_networks import EvaluationResult, evaluate_networks
from resnext_train.inference.evaluation_request import EvaluationRequest
from resnext_train.run_dir.result_file import write_json


def evaluate(request: EvaluationRequest) -> None:
    """Evaluate on all ranks, and print the result on rank 0."""
    with connect(request.patience_seconds) as context:
        result = evaluate_networks(request, context)
    if context.is_main:
        _report(result, request)


def _report(result: EvaluationResult, request: EvaluationRequest) -> None:
    values = result.values
    announce(f"{'network':15s}{values['arch']}, {values['checkpoint']}")
    if kind := values.get("weights"):
        announce(f"{'weights':15s}{KINDS[kind]}")
    announce(f"{'images':15s}{values['images']}, {values['data']}")
    announce(f"{'evaluation':15s}{values['protocol']}")
    if taken := values.get("recalibrated_bn"):
        announce(f"{'BatchNorm':15s}statistics taken anew from {taken:,} training images")
    for line in result.lines:
        print(line)
    for member in values.get("members", ()):
        low, high = member["top1_interval"]
        shown = f"{member['top1']:.3f} % ({member['top1_correct']}; {low:.2f} to {high:.2f})"
        kind = f" ({member['weights']})" if "weights" in member else ""
        announce(f"{'alone':15s}{shown}, top-5 {member['top5']:.3f} %, {member['checkpoint']}{kind}")
    print(f"{'speed':15s}{values['images_per_s']:.{0 if values['images_per_s'] >= 10 else 1}f} images/s")
    if values["unreadable"]:
        print(f"images left out, because they could not be read: {values['unreadable']}")
    if values.get("unlabelled"):
        print(f"images left out, because they have no label: {values['unlabelled']}")
    for line in result.tables:
        print(line)
    if request.json:
        write_json(request.json, "--json", values)
