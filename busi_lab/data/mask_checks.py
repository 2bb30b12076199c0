"""Masks that are probably none: what ``busi-data check`` says of them.

A defect is surely wrong: the scan itself as its mask, the scan with something drawn on it, an inverted mask, a bare
outline. A note may be meant: several values, one mask for two images, a picture of many gray levels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from busi_lab.data.case_files import CaseFiles, Defect
from busi_lab.data.levels import NEAR, Level, count_values, distance, unit_of
from busi_lab.data.masks import MaskFile
from busi_lab.data.scan import Gray, Mask
from busi_lab.plurals import counted

_MANY = 32  # gray levels: no mask has more, but for soft edges and the noise of JPEG
_THUMBNAIL = 48  # pixels
_SIMILAR = 0.9  # correlation of thumbnails of one scene
_LISTED = 5  # kinds of masks with several values that are named


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is kept of an image until all have been seen."""

    case: CaseFiles
    thumbnail: Gray
    mask: bytes  # with the size of the scan; empty for an empty mask
    defects: list[Defect]
    notes: list[Defect]
    levels: list[tuple[str, tuple[Level, ...], str]]  # file, its levels, what is taken of them


@dataclass
class MaskChecks:
    """Looks at every image with its masks, from several threads, and then tells what was found."""

    _seen: dict[int, _Seen] = field(default_factory=dict)

    def look(self, number: int, case: CaseFiles, scan: Gray, mask: Mask, files: Mapping[str, MaskFile]) -> None:
        """Look at image ``number``: its scan, its united mask, and its mask files by name."""
        defects, notes, levels = [], [], []
        for name, file in files.items():
            if name == case.image:  # which is a defect of the table
                continue
            if message := _is_wrong(scan, file):
                defects.append(Defect(name, message))
            elif message := _is_odd(file):
                notes.append(Defect(name, message))
            elif taken := _several(file):
                levels.append((name, tuple(file.levels), taken))
        thumbnail = cv2.resize(scan, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        content = f"{mask.shape}".encode() + np.packbits(mask).tobytes() if mask.any() else b""
        self._seen[number] = _Seen(case, thumbnail, content, defects, notes, levels)

    def defects(self) -> list[Defect]:
        """What is surely wrong, in the order of the images."""
        return [defect for _, seen in sorted(self._seen.items()) for defect in seen.defects]

    def notes(self) -> list[Defect]:
        """What may be meant, in the order of the images."""
        ordered = [seen for _, seen in sorted(self._seen.items())]
        single = [note for seen in ordered for note in seen.notes]
        return [*single, *_shared(ordered), *_values(ordered)]


def _is_wrong(scan: Gray, file: MaskFile) -> str:
    """Why this is no mask of the scan, or nothing."""
    gray = np.clip(np.asarray(file.gray) / unit_of(file.gray), 0, 255).astype(np.uint8)
    if len(count_values(gray)[0]) > _MANY:
        likeness = _likeness(scan, gray)
        if likeness > 0.98 and np.abs(scan.astype(np.int16) - gray).mean() < 3:
            return "the mask is the scan itself; expected the lesion in white on black"
        if likeness > 0.5:
            return "the mask is the scan with something drawn on it; expected the lesion alone, in white on black"
    lesion = file.lesion
    border = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    if border.mean() >= 0.95 and 0.5 <= lesion.mean() < 1:
        return "the mask is inverted: the lesion surrounds the rest; invert it, or data.lesion_values=[0] if all are"
    pixels = int(lesion.sum())
    if pixels and (enclosed := _enclosed(lesion)) > pixels:
        return f"the mask is an outline of {pixels} pixels round {enclosed} that are not lesion; fill it"
    return ""


def _likeness(scan: Gray, gray: Gray) -> float:
    """Correlation of the finest details, speckle above all; a drawn line counts little."""
    one, other = (np.clip(each - cv2.blur(each, (5, 5)), -12, 12) for each in map(np.float32, (scan, gray)))
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm else 0.0


def _enclosed(lesion: Mask) -> int:
    """Pixels inside a thin line that is not filled, also where it has gaps of two pixels; 0 of anything else."""
    line = cv2.dilate(lesion.astype(np.uint8), np.ones((3, 3), np.uint8))
    outlines = cv2.findContours(line, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    filled = cv2.drawContours(np.zeros_like(line), outlines, -1, 1, cv2.FILLED)
    inside = int(filled.sum()) - int(line.sum())
    return inside if inside > int(line.sum()) else 0


def _is_odd(file: MaskFile) -> str:
    values = file.gray
    count = len(count_values(values)[0])
    if count <= 2 * _MANY:
        return ""
    flat = np.zeros(values.shape, np.bool_)
    whole, unit = (file.values, 1.0) if file.colourful else (values, unit_of(values))
    for level in (file.background, *(level.value for level in file.levels)):
        flat |= distance(whole, level) <= NEAR * unit
    if flat.mean() >= 0.5:
        return ""
    return f"the mask has {count} gray levels and few areas of one value; expected a mask, this may be a picture"


def _several(file: MaskFile) -> str:
    """What is taken as lesion of a file with several values, or of one whose background is not dark; else nothing."""
    if len(file.levels) < 2 and not (file.levels and max(file.background) > NEAR):
        return ""
    taken = [level for level in file.levels if _is_taken(file, level)]
    if len(taken) == len(file.levels):
        return "all are taken as lesion" if len(taken) > 1 else "this is taken as lesion"
    return f"{_names(taken)} taken as lesion" if taken else "nothing is taken as lesion"


def _is_taken(file: MaskFile, level: Level) -> bool:
    near = distance(file.values if file.colourful else file.gray, level.value) == 0
    return bool(file.lesion[near].mean() > 0.5)


def _names(levels: list[Level] | tuple[Level, ...], text: Callable[[Level], str] = str) -> str:
    shown = [text(level) for level in levels[:6]]
    return ", ".join(shown) + (f" and {len(levels) - 6} more" if len(levels) > 6 else "")


def _values(ordered: list[_Seen]) -> list[Defect]:
    """Notes of files with several values; one for all files with the same."""
    kinds: dict[tuple[tuple[str, ...], str], list[tuple[str, tuple[Level, ...]]]] = {}
    for seen in ordered:
        for name, levels, taken in seen.levels:
            kinds.setdefault((tuple(map(str, levels)), taken), []).append((name, levels))
    notes = []
    for (_, taken), files in list(kinds.items())[:_LISTED]:
        name, levels = files[0]
        found = _names(levels, lambda level: f"{level} ({counted(level.pixels, 'pixel')})")
        more = f"; so in {counted(len(files) - 1, 'more file')}" if len(files) > 1 else ""
        several = "several values" if len(levels) > 1 else "a bright background and the value"
        notes.append(Defect(name, f"{several}: {found}: {taken}; data.lesion_values chooses{more}"))
    if rest := [name for files in list(kinds.values())[_LISTED:] for name, _ in files]:
        notes.append(Defect(rest[0], f"several other values; so in {counted(len(rest) - 1, 'more file')}"))
    return notes


def _shared(ordered: list[_Seen]) -> list[Defect]:
    """Notes of images with one mask that do not show one scene."""
    first: dict[bytes, _Seen] = {}
    pairs = [(seen, first.setdefault(seen.mask, seen)) for seen in ordered if seen.mask]
    return [
        Defect(seen.case.image, f"the same mask as {other.case.image}, another scan; see which one it belongs to")
        for seen, other in pairs
        if other is not seen and not _one_scene(seen, other)
    ]


def _one_scene(one: _Seen, other: _Seen) -> bool:
    pixels = np.stack([one.thumbnail.ravel(), other.thumbnail.ravel()]).astype(np.float64)
    pixels -= pixels.mean(axis=1, keepdims=True)
    norm = float(np.sqrt((pixels**2).sum(axis=1).prod()))
    return norm == 0 or float((pixels[0] * pixels[1]).sum()) / norm >= _SIMILAR
