"""`resnext predict`: classify images."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing

from resnext_train.cli.output_file import OutputFile
from resnext_train.cli.prediction_writers import CsvWriter, JsonWriter, PredictionWriter, TextWriter, write_rows
from resnext_train.cli.run_command import announce, warn
from resnext_train.data.sources.image_files import find_images
from resnext_train.distributed.dist_context import single_process
from resnext_train.inference.predict_images import PredictionJob
from resnext_train.inference.prediction import PredictionRequest
from resnext_train.run_dir.console import print_line, print_warning


def predict(request: PredictionRequest) -> int:
    """Classify images, and write or print what they are; return 1 if some could not be read."""
    images, notes = find_images(request.words, lambda: sys.stdin.buffer.read())
    for note in notes:
        warn(note)
    job = PredictionJob(request, images, single_process())
    started = time.perf_counter()
    with ExitStack() as stack:
        writers: list[PredictionWriter] = []
        files: list[OutputFile] = []
        if request.csv:
            files.append(stack.enter_context(OutputFile("--csv", request.csv)))
            count = min(request.top, len(job.names.classes))
            writers.append(CsvWriter(files[-1].write, count, job.names.titles is not None))
        if request.json:
            files.append(stack.enter_context(OutputFile("--json", request.json)))
            writers.append(JsonWriter(files[-1].write))
        stdout_is_free = not any(file.is_stdout for file in files)
        rows = stack.enter_context(closing(job.rows(is_shown=bool(files) and stdout_is_free)))
        count, unreadable = write_rows(rows, writers or [TextWriter(print_line)])
    seconds = time.perf_counter() - started
    bad = f"{unreadable:,} of {count:,} images could not be read"
    if files:
        tell = announce if stdout_is_free else print_warning
        written = " and ".join(filter(None, (request.csv, request.json)))
        tell(f"{count - unreadable:,} images classified, {(count - unreadable) / seconds:.0f} images/s: {written}")
        if unreadable:
            tell(bad)
    elif unreadable:
        print_warning(bad)
    return int(unreadable > 0)
