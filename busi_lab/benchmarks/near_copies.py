"""The search for near-copies, which a dataset needs once."""

import time
from collections.abc import Iterator
from pathlib import Path

from busi_lab.bench_record import Figure
from busi_lab.benchmarks.phantoms import phantoms
from busi_lab.benchmarks.settings import Settings
from busi_lab.data.duplicates import find_groups
from busi_lab.data.index import index_dataset


def measure(settings: Settings) -> Iterator[Figure]:
    """Seconds of one search, of the given scans or of phantoms."""
    root = Path(settings.scans) if settings.scans else phantoms(settings.images)
    index = index_dataset(str(root))
    clock = time.perf_counter()
    groups = find_groups(index)
    seconds = time.perf_counter() - clock
    about = {"images": len(index.cases), "groups": len(groups)}
    yield Figure("near-copies", f"search among {len(index.cases):,} images", "s", (seconds,), False, about)
