"""One scan held against many known ones: is it a near-copy of one of them?

It is found as in :mod:`busi_lab.data.duplicates`, by the same candidates, map and similarity.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from busi_lab.data.alignment import DescribedScan, compare, describe, hellinger, match
from busi_lab.data.duplicates import CANDIDATES, SIMILARITY
from busi_lab.data.scan import Gray
from busi_lab.data.scan_vectors import VIEWS, scan_vector, stacked, visual_words
from busi_lab.machine import cpu_count


@dataclass(frozen=True)
class NearCopy:
    """A known scan that another is a near-copy of, and how alike their structure is, up to 1."""

    name: str
    similarity: float


class KnownScans:
    """Scans that others are held against; about 0.15 MB each.

    Args:
        scans: by name, what reads its pixels, uint8 ``[H, W]``.
    """

    def __init__(self, scans: Mapping[str, Callable[[], Gray]]) -> None:
        self.names = tuple(scans)
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cpu_count()) as pool:
            self._scans = list(pool.map(lambda read: _described(read()), scans.values()))
            self._words = visual_words(self._scans)
            vectors = pool.map(lambda scan: scan_vector(scan, self._words), self._scans)
            self._vectors = stacked(vectors, len(self._scans))

    def near_copy(self, pixels: Gray) -> NearCopy | None:
        """The known scan that a scan uint8 ``[H, W]`` is most surely a near-copy of; None for none."""
        described = _described(pixels)
        found: NearCopy | None = None
        with threadpool_limits(1, user_api="blas"):
            for view in VIEWS:
                seen = described.seen(*view)
                scores = self._vectors @ scan_vector(seen, self._words)
                features = hellinger(seen.descriptors)
                for number in np.argsort(-scores)[:CANDIDATES]:
                    similarity, _ = compare(seen, self._scans[number], match(features, self._scans[number]))
                    if similarity >= (SIMILARITY if found is None else found.similarity):
                        found = NearCopy(self.names[number], similarity)
        return found


def _described(pixels: Gray) -> DescribedScan:
    scan = describe(pixels, np.zeros(pixels.shape, np.bool_))
    return replace(scan, mask=np.broadcast_to(np.False_, scan.pixels.shape))  # masks do not count here, and take none
