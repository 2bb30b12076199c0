"""What ``busi-bench`` has measured, as figures with their samples; ``bench.json`` holds them."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError
from busi_lab.files import write_json
from busi_lab.machine import cpu_count

SCHEMA = 1
_VERSIONS = ("busi-lab", "torch", "lightning", "openvino", "onnxruntime", "nncf")


@dataclass(frozen=True)
class Figure:
    """One quantity.

    Attributes:
        part: the part that has measured it.
        name: what it is of, unique in its part.
        unit: as ``images/s``, ``ms``, ``MB`` or ``ratio``.
        samples: a value a round; rounds of figures of one part are interleaved, so that the n-th ones are pairs.
        higher: whether more is better.
        about: further facts, such as the size of a file.
    """

    part: str
    name: str
    unit: str
    samples: tuple[float, ...]
    higher: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """By which figures of two records are paired."""
        return f"{self.part}: {self.name} [{self.unit}]"


@dataclass(frozen=True)
class Bench:
    """All figures of one call, and the machine: processor, cores, load before it began, versions."""

    figures: tuple[Figure, ...]
    machine: Mapping[str, Any]
    schema: int = SCHEMA


def this_machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": cpu_count(),
        "load_before": load,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _VERSIONS if (found := _version(name))},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_bench(path: Path, bench: Bench) -> None:
    """Write a record atomically."""
    write_json(path, asdict(bench))


def read_bench(path: Path) -> Bench:
    """Read a record.

    Raises:
        UserError: there is none, or it is of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {content['schema']}, expected {SCHEMA}; measure again")
        return Bench(tuple(_figure(item) for item in content["figures"]), dict(content["machine"]))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a bench.json of busi-bench") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: expected a bench.json of busi-bench; measure again") from None


def _figure(item: Mapping[str, Any]) -> Figure:
    samples: Sequence[float] = item["samples"]
    return Figure(**{**item, "samples": tuple(map(float, samples)), "about": dict(item["about"])})
