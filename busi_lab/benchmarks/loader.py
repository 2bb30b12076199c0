"""The loader on a set as large as BUSI and on a very large one: speed and memory must not depend on the number."""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from busi_lab.bench_record import Figure
from busi_lab.benchmarks.phantoms import cache_folder, phantoms
from busi_lab.benchmarks.settings import Settings
from busi_lab.config import AugmentConfig, SplitConfig
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.errors import UserError
from busi_lab.files import new_folder

_SMALL = 780
_DRAWN = 512  # scans of a round
_SIDE = 96
_PAPER = AugmentConfig(rotation=5.0, shift=0.1, shear=0.05, zoom=0.05, brightness=[1.0, 1.4], horizontal_flip=True)
"""As ``augment=paper``."""


def measure(settings: Settings) -> Iterator[Figure]:
    """Scans a second from either set in turns, their ratio, and the memory that each adds to the process."""
    small = phantoms(_SMALL, _SIDE, _SIDE)
    large = _many(small, settings.images)
    memory, sets = [_own_megabytes()], []
    for root in (small, large):
        sets.append(_datamodule(root))
        _draw(sets[-1])
        memory.append(_own_megabytes())
    speeds: list[list[float]] = [[], []]
    for _ in range(settings.rounds + 1):
        for data, found in zip(sets, speeds, strict=True):
            found.append(_draw(data))
    ratios = [many / few for few, many in zip(*speeds, strict=True)]
    for name, found in zip((_SMALL, settings.images), speeds, strict=True):
        yield Figure("loader", f"from {name:,} scans", "scans/s", tuple(found[1:]), True)
    yield Figure("loader", f"speed from {settings.images:,} / from {_SMALL}", "ratio", tuple(ratios[1:]), True)
    yield Figure("loader", f"memory of the process with {_SMALL} scans", "MB", (memory[1],))
    yield Figure("loader", f"memory that {settings.images:,} scans add", "MB", (memory[2] - memory[1],))


def _many(root: Path, count: int) -> Path:
    """A folder of so many links to the images of another, without masks."""
    root_of_links = cache_folder() / f"bench-links-2-{count}"
    if root_of_links.is_dir():
        return root_of_links
    sources = [path for path in sorted(root.glob("*/*.png")) if "_mask" not in path.stem]
    with new_folder(root_of_links) as folder:
        for number in range(count):
            source = sources[number % len(sources)]
            link = folder / source.parent.name / f"{source.parent.name} ({number + 1}).png"
            link.parent.mkdir(exist_ok=True)
            os.link(source, link)
    return root_of_links


def _datamodule(root: Path) -> BusiDataModule:
    data = BusiDataModule(
        root=str(root),
        image_size=64,
        batch_size=32,
        num_workers=0,
        cache_dir=str(cache_folder()),
        split=asdict(SplitConfig(protocol="holdout", groups="none")),
        augment=asdict(_PAPER),
        masks=False,
    )
    data.setup()
    return data


def _draw(data: BusiDataModule) -> float:
    """Scans a second of the first batches of an epoch."""
    clock, drawn = time.perf_counter(), 0
    for batch in data.train_dataloader():
        drawn += len(batch["image"])
        if drawn >= _DRAWN:
            break
    return drawn / (time.perf_counter() - clock)


def _own_megabytes() -> float:
    """Memory of this process alone: without the pages of files, which the system may take back."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("Anonymous:"))) / 1024
    except OSError:
        raise UserError("loader: the memory of a process is read from /proc, which Linux alone has") from None
