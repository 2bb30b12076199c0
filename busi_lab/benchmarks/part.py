"""One part in this process: ``python -m busi_lab.benchmarks.part PART SETTINGS FILE`` writes its figures to a file."""

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from busi_lab.benchmarks.settings import Settings
from busi_lab.errors import exit_on_user_error

_MODULES = {"predict": "prediction", "near-copies": "near_copies", "compare": "many_runs"}
"""Of the parts that are not called as their file."""


def main(argv: Sequence[str]) -> None:
    """Measure the part that the arguments name."""
    part, content, file = argv
    settings = Settings.from_text(content)
    with exit_on_user_error():
        module = importlib.import_module(f"busi_lab.benchmarks.{_MODULES.get(part, part)}")
        figures = [asdict(figure) for figure in module.measure(settings)]
        Path(file).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
