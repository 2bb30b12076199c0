"""The search for scans that show the same frame, or a neighbouring frame of the same sweep.

Copies of one frame, resized, squeezed, recompressed, cropped at the border, mirrored, with gray levels inverted, with
or without calipers, put the same tissue into training and test set; frames of one sweep that differ by a moment do
nearly so. They are found in three steps, on scans whose longer side is brought to 320 pixels:

1. Each scan becomes one vector: the VLAD (Jegou et al., CVPR 2010) of its SIFT features (Lowe, IJCV 60:91-110,
   2004, under the Hellinger kernel of Arandjelovic & Zisserman, CVPR 2012), which withstands cropping, and beside it
   a thumbnail, which withstands a moved probe. The ten scans of nearest vector are its candidates, and the ten
   nearest to its mirror image, its negative, and both at once.
2. Features of a scan and a candidate are matched; RANSAC fits the affine map from one to the other, and where the
   fit leaves a doubt, ECC (Evangelidis & Psarakis, TPAMI 30:1858-1865, 2008) improves it.
3. The map is checked by the pixels: the *similarity* is the correlation of the two scans where they overlap, each
   first freed of its local mean and contrast, so that speckle and fine structure count, not the layering of skin,
   fat and muscle that all breasts share. From 0.33 on, a pair is verified.

Groups are the connected components of the verified pairs.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from busi_lab.data.alignment import Floats, compare, describe, hellinger, match
from busi_lab.data.cache import locked_cache
from busi_lab.data.groups import Group, Pair, components, group_numbers
from busi_lab.data.index import Index, read_case
from busi_lab.data.scan_vectors import VIEWS, View, scan_vector, stacked, visual_words
from busi_lab.errors import UserError, one_line
from busi_lab.files import write_json
from busi_lab.machine import cpu_count
from busi_lab.plurals import counted

SIMILARITY = 0.33  # of a verified pair; see the module's text

_VERSION = 3  # raise when other groups would be found in the same dataset, or are stored in another form
CANDIDATES = 10
"""Scans of nearest vector that are compared."""
_BLOCK = 512  # rows of the product of all vectors that are in memory at once

log = logging.getLogger(__name__)


def find_groups(index: Index) -> list[Group]:
    """Find all groups of two images or more; the first image of each, in the index's order, orders them.

    Time grows linearly with the number of images, but for one matrix product. Every call gives the same groups.

    Raises:
        UserError: a file has become unreadable since it was indexed.
    """
    _keep_freed_memory()
    # A core for each scan or pair: threads inside of their small products would mostly wait for each other.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        described = pool.map(lambda case: describe(*read_case(index.root, case)), index.cases)
        scans = list(tqdm(described, "describe", len(index.cases), disable=None))  # on a terminal only
        words = visual_words(scans)
        straight = stacked(pool.map(lambda scan: scan_vector(scan, words), scans), len(scans))
        tasks: list[tuple[int, View, list[int]]] = []
        for view in VIEWS:
            queries = stacked(pool.map(lambda scan, view=view: scan_vector(scan.seen(*view), words), scans), len(scans))
            tasks += [(first, view, others) for first, others in _candidates(straight, queries, pool).items()]
        count = sum(len(others) for _, _, others in tasks)
        log.info("comparing %s of %d images", counted(count, "pair"), len(scans))

        def verify(task: tuple[int, View, list[int]]) -> list[tuple[float, float]]:
            first, view, others = task
            seen = scans[first].seen(*view)
            features = hellinger(seen.descriptors)
            return [compare(seen, scans[other], match(features, scans[other])) for other in others]

        results = tqdm(pool.map(verify, tasks), "compare", len(tasks), disable=None)
        verified: dict[tuple[int, int], Pair] = {}
        for (first, view, others), compared in zip(tasks, results, strict=True):
            for second, (similarity, dice) in zip(others, compared, strict=True):
                if similarity >= SIMILARITY:
                    one, other = index.cases[first], index.cases[second]
                    known_masks = one.mask_known and other.mask_known
                    pair = Pair(one.case_id, other.case_id, similarity, dice if known_masks else 1.0, *view)
                    known = verified.get((first, second), pair)
                    verified[first, second] = max(known, pair, key=lambda item: item.similarity)
    connected = defaultdict(list)
    for (first, _), pair in sorted(verified.items(), key=itemgetter(0)):
        connected[first].append(pair)
    return [
        Group(
            number,
            tuple(index.cases[member] for member in members),
            tuple(pair for member in members for pair in connected[member]),
        )
        for number, members in enumerate(components(len(scans), verified), start=1)
    ]


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: each scan else faults in anew the megabytes that the one before it gave back.

    It raises its threshold of mapped blocks to the largest that was freed; other allocators are not touched.
    """
    np.empty(31 << 20, np.uint8)  # below the 32 MiB that it raises the threshold to at most


def _candidates(straight: Floats, views: Floats, pool: Executor) -> dict[int, list[int]]:
    """Of each scan, the later ones that come nearest to its view, or it to theirs; vectors are ``[N, D]``."""
    found: dict[int, set[int]] = defaultdict(set)
    count = min(CANDIDATES, len(straight) - 1)
    if count < 1:
        return {}

    def nearest(start: int) -> list[list[int]]:
        scores = views[start : start + _BLOCK] @ straight.T
        rows = np.arange(len(scores))
        scores[rows, start + rows] = -np.inf  # no scan is its own candidate
        best: list[list[int]] = np.argpartition(-scores, count - 1, axis=1)[:, :count].tolist()
        return best

    starts = range(0, len(straight), _BLOCK)
    for start, best in zip(starts, pool.map(nearest, starts), strict=True):
        for row, others in enumerate(best, start):
            for other in others:
                found[min(row, other)].add(max(row, other))
    return {first: sorted(others) for first, others in sorted(found.items())}


def _checksum(numbers: Mapping[str, int]) -> str:
    """Of groups: a line that is lost would hide a leak."""
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:16]


def cached_groups(index: Index, cache_dir: Path | None) -> dict[str, int]:
    """As :func:`group_numbers` of :func:`find_groups`, found once for each content of a dataset.

    Of several processes, also on several machines, one finds the groups and the others wait.

    Args:
        index: the dataset.
        cache_dir: folder of all caches; None stores nothing.

    Raises:
        UserError: a scan has become unreadable, or the cache cannot be written.
    """
    if cache_dir is None:
        return group_numbers(find_groups(index))
    path = cache_dir / f"groups-{_VERSION}-{index.digest}.json"
    if (numbers := _stored(path)) is not None:
        return numbers
    wait = "another process looks for near-identical images: waiting for it"
    with locked_cache(cache_dir, f".groups-{_VERSION}-{index.digest}.lock", wait):
        if (numbers := _stored(path)) is not None:
            return numbers
        if path.exists():
            log.warning("%s is damaged and made anew", path)
        log.info("looking for near-identical images among %d, once", len(index.cases))
        numbers = group_numbers(find_groups(index))
        try:
            write_json(path, {"checksum": _checksum(numbers), "groups": numbers})
        except OSError as error:
            raise UserError(
                f"the groups of near-identical images cannot be written to {cache_dir} ({one_line(error)}); set "
                "data.cache_dir or the environment variable BUSI_LAB_CACHE to a writable folder, or data.cache_dir=null"
            ) from None
    return numbers


def _stored(path: Path) -> dict[str, int] | None:
    """The groups in a file; None where there are none, or they are not as they were written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        numbers = {str(case_id): int(number) for case_id, number in content["groups"].items()}
        if content["checksum"] != _checksum(numbers):
            raise ValueError("its checksum differs")
        return numbers
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
