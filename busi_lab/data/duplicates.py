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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from busi_lab.data.cache import locked_cache
from busi_lab.data.groups import Group, Pair, components, group_numbers
from busi_lab.data.index import Index, read_case
from busi_lab.data.scan import Gray, Mask
from busi_lab.errors import UserError, one_line
from busi_lab.files import write_json
from busi_lab.machine import cpu_count
from busi_lab.plurals import counted

SIMILARITY = 0.33  # of a verified pair; see the module's text

_VERSION = 3  # raise when other groups would be found in the same dataset, or are stored in another form
_SIDE = 320  # pixels
_FEATURES = 400  # of a scan, at most
_THUMBNAIL = 24  # pixels
_THUMBNAIL_WEIGHT = 0.5  # of its inner product, that of the VLAD being 1
_WORDS = 32
_SAMPLE = 20_000  # features that the words are learned from
_CANDIDATES = 10
_BLOCK = 512  # rows of the product of all vectors that are in memory at once
_RATIO = 0.8  # Lowe's bound on the nearest over the second nearest feature's distance
_MAX_SCALE = 2.5
_MAX_STRETCH = 2.0  # between the axes, as a resize without regard to the aspect ratio makes: 16:9 to a square is 1.78
_MIN_OVERLAP = 0.5  # of the smaller scan
_REFINED = 0.1, 0.9  # similarities between which a better map may matter

_VIEWS = ((False, False), (True, False), (False, True), (True, True))  # mirrored, negative

Floats = NDArray[np.float32]
_Candidate = tuple[int, int, bool, bool]  # two numbers, and the view of the first

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Scan:
    """A scan at working size, uint8 ``[H, W]``, with SIFT positions ``[K, 2]`` and descriptors uint8 ``[K, 128]``."""

    pixels: Gray
    mask: Mask
    points: Floats
    descriptors: Gray

    def mirrored(self) -> "_Scan":
        """The same, left and right exchanged, without looking for features again."""
        # 4 x 4 cells of 8 directions, relative to the feature's own: the mirror turns the rows and the sense.
        cells = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1][..., -np.arange(8) % 8]
        points = self.points * np.array([-1, 1], np.float32)
        points[:, 0] += self.pixels.shape[1] - 1
        pixels, mask = np.ascontiguousarray(self.pixels[:, ::-1]), np.ascontiguousarray(self.mask[:, ::-1])
        return _Scan(pixels, mask, points, cells.reshape(-1, 128))

    def negative(self) -> "_Scan":
        """The same with inverted gray levels, without looking for features again."""
        # Every gradient turns round, and with them the feature's own direction: the cells are seen upside down.
        cells = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, ::-1]
        return _Scan(255 - self.pixels, self.mask, self.points, cells.reshape(-1, 128))

    def seen(self, mirror: bool, negative: bool) -> "_Scan":
        """The scan as a copy of it may show it."""
        scan = self.mirrored() if mirror else self
        return scan.negative() if negative else scan


def find_groups(index: Index) -> list[Group]:
    """Find all groups of two images or more; the first image of each, in the index's order, orders them.

    Time grows linearly with the number of images, but for one matrix product. Every call gives the same groups.

    Raises:
        UserError: a file has become unreadable since it was indexed.
    """
    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        described = pool.map(lambda case: _describe(*read_case(index.root, case)), index.cases)
        scans = list(tqdm(described, "describe", len(index.cases), disable=None))  # on a terminal only
        words = _words(scans)
        straight = list(pool.map(lambda scan: _vector(scan, words), scans))
        found: set[_Candidate] = set()
        for view in _VIEWS:
            queries = list(pool.map(lambda scan, view=view: _vector(scan.seen(*view), words), scans))
            found |= {(*pair, *view) for pair in _candidates(straight, queries)}
        candidates = sorted(found)
        log.info("comparing %s of %d images", counted(len(candidates), "pair"), len(scans))

        def verify(candidate: _Candidate) -> tuple[float, float]:
            first, second, *view = candidate
            return _compare(scans[first].seen(*view), scans[second])

        results = tqdm(pool.map(verify, candidates), "compare", len(candidates), disable=None)
        verified: dict[tuple[int, int], Pair] = {}
        for (first, second, mirror, negative), (similarity, dice) in zip(candidates, results, strict=True):
            if similarity >= SIMILARITY:
                one, other = index.cases[first], index.cases[second]
                known_masks = one.mask_known and other.mask_known
                pair = Pair(one.case_id, other.case_id, similarity, dice if known_masks else 1.0, mirror, negative)
                known = verified.get((first, second), pair)
                verified[first, second] = max(known, pair, key=lambda item: item.similarity)
    return [
        Group(
            number,
            tuple(index.cases[member] for member in members),
            tuple(pair for (first, _), pair in verified.items() if first in members),
        )
        for number, members in enumerate(components(len(scans), verified), start=1)
    ]


def _describe(image: Gray, mask: Mask) -> _Scan:
    height, width = image.shape
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = cv2.resize(image, size, interpolation=method)
    small_mask = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=method) >= 128
    finder: Any = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=0.02)
    # Half the usual contrast threshold: deep tissue is dark.
    keypoints, descriptors = finder.detectAndCompute(pixels, None)
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
    found = np.zeros((0, 128), np.uint8) if descriptors is None else descriptors.astype(np.uint8)
    return _Scan(pixels, small_mask, points, found)


def _hellinger(descriptors: Gray) -> Floats:
    """Descriptors ``[K, 128]`` whose dot product is the Hellinger kernel; each has length 1."""
    values = descriptors.astype(np.float32)
    roots: Floats = np.sqrt(values / values.sum(axis=1, keepdims=True).clip(min=1))
    return roots


def _words(scans: Sequence[_Scan]) -> Floats:
    """Centres of clusters of features, at most ``[32, 128]``; none where there are no features."""
    features = np.concatenate([np.zeros((0, 128), np.uint8), *(scan.descriptors for scan in scans)])
    rng = np.random.default_rng(0)
    sample = _hellinger(features[rng.permutation(len(features))[:_SAMPLE]])
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


def _vector(scan: _Scan, words: Floats) -> Floats:
    """VLAD ``[32 * 128]`` of length 1, then the weighted thumbnail ``[24 * 24]``."""
    sums = np.zeros((_WORDS, 128), np.float32)
    if len(scan.descriptors):
        features = _hellinger(scan.descriptors)
        nearest = _nearest(features, words)
        np.add.at(sums, nearest, features - words[nearest])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-9)
    thumbnail = _structure(cv2.resize(scan.pixels, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA), sigma=4)
    parts = (part / np.linalg.norm(part).clip(min=1e-9) for part in (sums, thumbnail - thumbnail.mean()))
    return np.concatenate(
        [part.ravel() * weight for part, weight in zip(parts, (1, _THUMBNAIL_WEIGHT**0.5), strict=True)]
    )


def _structure(pixels: NDArray[Any], sigma: float = 8) -> Floats:
    """Gray levels without their local mean and, but for a floor that keeps black parts quiet, local contrast."""
    values = pixels.astype(np.float32)
    values -= cv2.GaussianBlur(values, (0, 0), sigma)
    values /= np.sqrt(cv2.GaussianBlur(values**2, (0, 0), sigma)) + 4
    return values


def _candidates(straight: Sequence[Floats], views: Sequence[Floats]) -> set[tuple[int, int]]:
    """Pairs of numbers, the smaller first, of a scan and those to which its view comes nearest."""
    found: set[tuple[int, int]] = set()
    count = min(_CANDIDATES, len(straight) - 1)
    if count < 1:
        return found
    vectors, queries = np.stack(straight), np.stack(views)
    for start in range(0, len(vectors), _BLOCK):
        scores = queries[start : start + _BLOCK] @ vectors.T
        rows = np.arange(len(scores))
        scores[rows, start + rows] = -np.inf  # no scan is its own candidate
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        found |= {
            (min(row, other), max(row, other)) for row, others in enumerate(best.tolist(), start) for other in others
        }
    return found


def _compare(first: _Scan, second: _Scan) -> tuple[float, float]:
    """Similarity of two scans, and Dice of their masks, where they overlap; zeros if they cannot be aligned."""
    transform = _align(first, second)
    if transform is None:
        return 0.0, 0.0
    if np.linalg.det(transform[:, :2]) > 1:  # the finer scan is brought to the coarser one's pixels
        first, second, transform = second, first, cv2.invertAffineTransform(transform)
    result = _overlap(first, second, transform)
    if not _REFINED[0] <= result[0] < _REFINED[1]:
        return result
    backward = cv2.invertAffineTransform(transform).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-3)
    try:
        cv2.findTransformECC(second.pixels, first.pixels, backward, cv2.MOTION_AFFINE, stop, None, 5)
    except cv2.error:  # it found no better map
        return result
    return max(result, _overlap(first, second, cv2.invertAffineTransform(backward)))


def _overlap(first: _Scan, second: _Scan, transform: NDArray[Any]) -> tuple[float, float]:
    """Correlation of structure and Dice of the masks where the scans meet, the first mapped by ``transform``."""
    height, width = second.pixels.shape
    area = float(np.linalg.det(transform[:, :2]))

    def warp(values: Gray) -> Gray:
        warped: Gray = cv2.warpAffine(values, transform, (width, height))
        return warped

    # The frame of 3 pixels keeps what lies outside from blurring in.
    inside = cv2.erode(warp(np.full_like(first.pixels, 255)), np.ones((7, 7), np.uint8)) == 255
    if area <= 0 or inside.sum() < _MIN_OVERLAP * min(first.pixels.size * area, second.pixels.size):
        return 0.0, 0.0
    smooth = warp(cv2.GaussianBlur(first.pixels, (0, 0), area**-0.5)), cv2.GaussianBlur(second.pixels, (0, 0), 1)
    one, other = (_structure(pixels)[inside] for pixels in smooth)
    one, other = one - one.mean(), other - other.mean()
    similarity = float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))
    lesion, reference = warp(first.mask.astype(np.uint8) * 255)[inside] >= 128, second.mask[inside]
    total = int(lesion.sum() + reference.sum())
    return similarity, 2 * int((lesion & reference).sum()) / total if total else 1.0


def _align(first: _Scan, second: _Scan) -> NDArray[np.float64] | None:
    """The affine map ``[2, 3]`` from the first scan's pixels to the second's, if there is a plausible one."""
    if min(len(first.points), len(second.points)) < 2:
        return None
    cosines = _hellinger(first.descriptors) @ _hellinger(second.descriptors).T
    nearest, rows = cosines.argmax(axis=1), np.arange(len(cosines))
    mutual = cosines.argmax(axis=0)[nearest] == rows
    best = cosines[rows, nearest]
    cosines[rows, nearest] = -1
    matched = mutual & (1 - best < _RATIO**2 * (1 - cosines.max(axis=1)))  # the squared distance is 2 - 2 cosine
    if matched.sum() < 4:
        return None
    transform: NDArray[np.float64] | None
    transform, _ = cv2.estimateAffine2D(first.points[matched], second.points[nearest[matched]], ransacReprojThreshold=4)
    if transform is None or np.linalg.det(transform[:, :2]) <= 0:
        return None
    large, small = np.linalg.svd(transform[:, :2], compute_uv=False)
    plausible = large <= _MAX_SCALE and small >= 1 / _MAX_SCALE and large <= _MAX_STRETCH * small
    return transform if plausible else None


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
