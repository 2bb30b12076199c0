"""A folder of images and a folder of masks with equal names, as BUSIS and many others are given.

BUSIS: Zhang et al., BUSIS: A Benchmark for Breast Ultrasound Image Segmentation, Healthcare 10:729, 2022; given on
request, as ``Original/case1.png`` with ``GT/case1_GT.bmp``. A name may have ``mask``, ``seg`` or ``GT`` before or
behind that of its image. No labels and no patients are taken.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath

from busi_lab.data.importers.item import Item
from busi_lab.data.importers.source import Source
from busi_lab.data.names import folded

IMAGES = {"image", "images", "img", "imgs", "original", "originals", "scan", "scans"}
MASKS = {"mask", "masks", "gt", "groundtruth", "ground_truth", "label", "labels", "seg", "segmentation"}
MASKS |= {"segmentations", "annotation", "annotations"}

_WORD = r"(?:mask|seg|segmentation|gt)"
_AFFIX = re.compile(rf"^{_WORD}[ _.-]+|[ _.-]+{_WORD}$")


def read(source: Source) -> Iterator[Item]:
    """The scans of two such folders.

    Raises:
        UserError: one of them is missing.
    """
    for image, masks in pair(source, source.images_in(IMAGES), source.images_in(MASKS)):
        yield Item(without_folder(image, IMAGES), image, masks)


def without_folder(name: str, folders: Collection[str]) -> str:
    """A path without ending, and without the folders of some names, in small letters."""
    return "/".join([*_folders(name, folders), PurePosixPath(name).stem])


def pair(
    source: Source, images: Mapping[str, list[str]], masks: Mapping[str, list[str]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each image with its mask; what has no partner, or several, is noted.

    Raises:
        UserError: there are no images, or no masks.
    """
    if not images or not masks:
        raise source.refuse("a folder such as images or original, and one such as masks or GT")
    by_stem: dict[str, list[str]] = defaultdict(list)
    for names in masks.values():
        for name in names:
            by_stem[_AFFIX.sub("", folded(PurePosixPath(name).stem))].append(name)
    outlines = {name for names in masks.values() for name in names}
    scans = [name for names in images.values() for name in names if name not in outlines]
    rivals: dict[str, list[str]] = defaultdict(list)
    for name in scans:
        rivals[folded(PurePosixPath(name).stem)].append(name)
    for name in sorted(scans):
        stem = folded(PurePosixPath(name).stem)
        candidates = _nearest(name, by_stem.get(stem, []), len(rivals[stem]) > 1)
        if len(candidates) == 1:
            yield name, (candidates[0],)
            continue
        why = f"may have the masks {' or '.join(candidates[:3])}" if candidates else "has no mask file of its name"
        source.leave(name, f"{why}: no known mask")
        yield name, ()
    for name in sorted(name for stem, names in by_stem.items() if stem not in rivals for name in names):
        source.leave(name, "has no image of its name")


def _nearest(image: str, masks: list[str], several: bool) -> list[str]:
    """The masks of an image's name; where several images have it, those whose folders are the same but for one."""
    if not several:
        return masks
    around = _folders(image, IMAGES)
    return [mask for mask in masks if _folders(mask, MASKS) == around]


def _folders(name: str, without: Collection[str]) -> list[str]:
    return [part for part in PurePosixPath(name).parts[:-1] if folded(part) not in without]
