"""Run one stage in this process: `python -m scripts.gpu_check.one_stage MODULE:FUNCTION HOST.json RESULT.json`."""

from __future__ import annotations

import json
import sys
import traceback
from importlib import import_module
from pathlib import Path

from scripts.gpu_check.report import CannotRunHereError, Host, Report


def main(place: str, host_file: str, result_file: str) -> None:
    """Run the function `place`, which takes a Host and a Report, and write its verdict."""
    fields = json.loads(Path(host_file).read_text(encoding="utf-8"))
    host = Host(**{**fields, "folder": Path(fields["folder"])})
    report = Report(Path(result_file))
    try:
        module, name = place.split(":")
        getattr(import_module(module), name)(host, report)
    except CannotRunHereError as reason:
        report.finish(skipped=str(reason))
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0][:300]
        report.finish(crashed=f"{type(error).__name__}: {first}")
    else:
        report.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
