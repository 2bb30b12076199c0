"""A scan as one vector whose inner product with another's says how alike they are: VLAD, and beside it a thumbnail.

Sources stand in :mod:`busi_lab.data.duplicates`, which finds candidates by it.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_lab.data.alignment import DescribedScan, Floats, hellinger, structure

_THUMBNAIL = 24  # pixels
_THUMBNAIL_WEIGHT = 0.5  # of its inner product, that of the VLAD being 1
_WORDS = 32
_SAMPLE = 20_000  # features that the words are learned from

View = tuple[bool, bool]
"""Mirrored, negative."""

VIEWS: tuple[View, ...] = ((False, False), (True, False), (False, True), (True, True))


def visual_words(scans: Sequence[DescribedScan]) -> Floats:
    """Centres of clusters of features, at most ``[32, 128]``; none where there are no features."""
    ends = np.cumsum([len(scan.descriptors) for scan in scans])
    chosen = np.random.default_rng(0).permutation(ends[-1])[:_SAMPLE]
    owners = np.searchsorted(ends, chosen, side="right")
    rows = [scans[owner].descriptors[number - ends[owner]] for owner, number in zip(owners, chosen, strict=True)]
    sample = hellinger(np.array(rows, np.uint8).reshape(-1, 128))
    if len(sample) <= _WORDS:
        return sample
    # Started from given labels, as OpenCV's own start would draw from a generator that the process shares.
    labels = _nearest(sample, sample[:_WORDS]).astype(np.int32)
    stop = (cv2.TERM_CRITERIA_COUNT, 15, 0.0)
    centres: Floats = cv2.kmeans(sample, _WORDS, labels, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)[2]
    return centres


def _nearest(features: Floats, words: Floats) -> NDArray[np.intp]:
    nearest: NDArray[np.intp] = np.argmax(features @ words.T - (words**2).sum(axis=1) / 2, axis=1)
    return nearest


def scan_vector(scan: DescribedScan, words: Floats) -> Floats:
    """VLAD ``[32 * 128]`` of length 1, then the weighted thumbnail ``[24 * 24]``."""
    sums = np.zeros((_WORDS, 128), np.float32)
    if len(scan.descriptors):
        features = hellinger(scan.descriptors)
        nearest = _nearest(features, words)
        chosen = (nearest == np.arange(_WORDS)[:, None]).astype(np.float32)
        sums = chosen @ (features - words[nearest])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-9)
    thumbnail = structure(cv2.resize(scan.pixels, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA), sigma=4)
    parts = (part / np.linalg.norm(part).clip(min=1e-9) for part in (sums, thumbnail - thumbnail.mean()))
    return np.concatenate(
        [part.ravel() * weight for part, weight in zip(parts, (1, _THUMBNAIL_WEIGHT**0.5), strict=True)]
    )


def stacked(rows: Iterable[Floats], count: int) -> Floats:
    """Vectors of ``count`` scans, one below the other, ``[N, 32 * 128 + 24 * 24]``."""
    vectors = np.empty((count, _WORDS * 128 + _THUMBNAIL**2), np.float32)
    for number, row in enumerate(rows):
        vectors[number] = row
    return vectors
