"""Two scans brought to each other: their features, the affine map between them, and how alike their pixels then are."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_lab.data.scan import Gray, Mask

_SIDE = 320  # pixels
_FEATURES = 400  # of a scan, at most
_RATIO = 0.8  # Lowe's bound on the nearest over the second nearest feature's distance
_MAX_SCALE = 2.5
_MAX_STRETCH = 2.0  # between the axes, as a resize without regard to the aspect ratio makes: 16:9 to a square is 1.78
_MIN_OVERLAP = 0.5  # of the smaller scan
_REFINED = 0.1, 0.9  # similarities between which a better map may matter

Floats = NDArray[np.float32]
Matches = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Numbers of features of two scans that match, pair by pair."""


@dataclass(frozen=True)
class DescribedScan:
    """A scan at working size, uint8 ``[H, W]``, with SIFT positions ``[K, 2]`` and descriptors uint8 ``[K, 128]``."""

    pixels: Gray
    mask: Mask
    points: Floats
    descriptors: Gray

    def mirrored(self) -> "DescribedScan":
        """The same, left and right exchanged, without looking for features again."""
        # 4 x 4 cells of 8 directions, relative to the feature's own: the mirror turns the rows and the sense.
        cells = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1][..., -np.arange(8) % 8]
        points = self.points * np.array([-1, 1], np.float32)
        points[:, 0] += self.pixels.shape[1] - 1
        pixels, mask = np.ascontiguousarray(self.pixels[:, ::-1]), np.ascontiguousarray(self.mask[:, ::-1])
        return DescribedScan(pixels, mask, points, cells.reshape(-1, 128))

    def negative(self) -> "DescribedScan":
        """The same with inverted gray levels, without looking for features again."""
        # Every gradient turns round, and with them the feature's own direction: the cells are seen upside down.
        cells = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, ::-1]
        return DescribedScan(255 - self.pixels, self.mask, self.points, cells.reshape(-1, 128))

    def seen(self, mirror: bool, negative: bool) -> "DescribedScan":
        """The scan as a copy of it may show it."""
        scan = self.mirrored() if mirror else self
        return scan.negative() if negative else scan


def describe(image: Gray, mask: Mask) -> DescribedScan:
    """A scan with its features; ``image`` is uint8 ``[H, W]``, ``mask`` bool."""
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
    return DescribedScan(pixels, small_mask, points, found)


def hellinger(descriptors: Gray) -> Floats:
    """Descriptors ``[K, 128]`` whose dot product is the Hellinger kernel; each has length 1."""
    values: Floats = descriptors.astype(np.float32)
    values /= values.sum(axis=1, keepdims=True).clip(min=1)
    return np.sqrt(values, out=values)


def structure(pixels: NDArray[Any], sigma: float = 8) -> Floats:
    """Gray levels without their local mean and, but for a floor that keeps black parts quiet, local contrast."""
    values = pixels.astype(np.float32)
    values -= cv2.GaussianBlur(values, (0, 0), sigma)
    values /= np.sqrt(cv2.GaussianBlur(values**2, (0, 0), sigma)) + 4
    return values


def match(features: Floats, scan: DescribedScan) -> Matches:
    """Those of :func:`hellinger`'s features ``[K, 128]`` and of a scan that are each other's nearest, by far."""
    none = np.zeros(0, np.intp)
    if min(len(features), len(scan.points)) < 2:
        return none, none
    cosines = features @ hellinger(scan.descriptors).T
    rows, nearest = np.arange(len(cosines)), cosines.argmax(axis=1)
    best = cosines[rows, nearest]
    cosines[rows, nearest] = -1
    second = cosines[rows, cosines.argmax(axis=1)]  # faster than the maximum
    distinct = np.flatnonzero(1 - best < _RATIO**2 * (1 - second))  # the squared distance is 2 - 2 cosine
    cosines[rows, nearest] = best
    mutual = distinct[cosines[:, nearest[distinct]].argmax(axis=0) == distinct]  # these few columns, not all
    return mutual, nearest[mutual]


def compare(first: DescribedScan, second: DescribedScan, matches: Matches) -> tuple[float, float]:
    """Similarity of two scans, and Dice of their masks, where they overlap; zeros if they cannot be aligned."""
    transform = _align(first.points[matches[0]], second.points[matches[1]])
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


def _overlap(first: DescribedScan, second: DescribedScan, transform: NDArray[Any]) -> tuple[float, float]:
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
    one, other = (structure(pixels)[inside] for pixels in smooth)
    one, other = one - one.mean(), other - other.mean()
    similarity = float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))
    lesion, reference = warp(first.mask.astype(np.uint8) * 255)[inside] >= 128, second.mask[inside]
    total = int(lesion.sum() + reference.sum())
    return similarity, 2 * int((lesion & reference).sum()) / total if total else 1.0


def _align(first: Floats, second: Floats) -> NDArray[np.float64] | None:
    """The affine map ``[2, 3]`` from the first points ``[K, 2]`` to the second, if there is a plausible one."""
    if len(first) < 4:
        return None
    transform: NDArray[np.float64] | None
    transform, _ = cv2.estimateAffine2D(first, second, ransacReprojThreshold=4)
    if transform is None or np.linalg.det(transform[:, :2]) <= 0:
        return None
    large, small = np.linalg.svd(transform[:, :2], compute_uv=False)
    plausible = large <= _MAX_SCALE and small >= 1 / _MAX_SCALE and large <= _MAX_STRETCH * small
    return transform if plausible else None
