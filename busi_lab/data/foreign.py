"""What a file is that is none of the images we read, and how it becomes one."""

import gzip
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from busi_lab.data.scan import EXPECTED

_SLICES = "save it as PNG, a file a frame, with ITK-SNAP, 3D Slicer or SimpleITK (see busi_lab/data/README.md)"
_FRAMES = "save its frames as PNG: ffmpeg -i FILE frame%04d.png"
_HEAD = 512  # bytes
_NIFTI = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
_POINTERS = {b"version https://git-lfs": "Git LFS: git lfs pull", b"/annex/objects/": "git-annex: git annex get"}
_VOLUMES = {
    "NIfTI": (".nii", ".nii.gz"),
    "NIfTI or Analyze": (".hdr",),
    "NRRD": (".nrrd", ".nhdr"),
    "MetaImage": (".mha", ".mhd"),
}
_VIDEOS = {".mp4": "MP4", ".avi": "AVI", ".mov": "QuickTime", ".wmv": "WMV", ".mkv": "Matroska"}


def what_else(path: Path, formats: Collection[str]) -> str:
    """What a file is that none of our formats fits, in a sentence with what to do.

    Args:
        path: of the file.
        formats: that Pillow knows and we read.
    """
    if advice := foreign_format(path):
        return advice
    try:
        with Image.open(path) as image:
            found = image.format
    except Exception:  # the file may be anything
        found = None
    if found is None or found in formats:
        return f"the content is not an image; {EXPECTED}"
    return f"the file is {found}; {EXPECTED}: convert it to PNG"


def foreign_format(path: Path) -> str:
    """A sentence on a medical volume, a video, or a pointer to a file that is not there; empty for anything else."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                head = file.read(_HEAD)
    except (OSError, EOFError, ValueError):
        return ""
    for pointer, owner in _POINTERS.items():
        if head.startswith(pointer):
            return f"the file is only a pointer of {owner} fetches the picture"
    kind = _volume(head)
    name = path.name.lower()
    kind = kind or next((kind for kind, endings in _VOLUMES.items() if name.endswith(endings)), "")
    if kind:
        return f"the file is {kind}; {EXPECTED}: {_SLICES}"
    video = "AVI" if head[:4] == b"RIFF" and head[8:11] == b"AVI" else "MP4" if head[4:8] == b"ftyp" else ""
    video = video or _VIDEOS.get(path.suffix.lower(), "")
    return f"the file is a video ({video}); {EXPECTED}: {_FRAMES}" if video else ""


def may_be_foreign(path: Path) -> bool:
    """Whether a file's ending is that of a volume or a video."""
    return path.name.lower().endswith((*(ending for kind in _VOLUMES.values() for ending in kind), *_VIDEOS))


def _volume(head: bytes) -> str:
    """The format of a volume by how it begins: NIfTI-1 at byte 344 and NIfTI-2 at byte 4, NRRD, MetaImage."""
    if head[344:348] in _NIFTI or head[4:8] in _NIFTI:
        return "NIfTI"
    if head.startswith(b"NRRD000"):
        return "NRRD"
    return "MetaImage" if head.lstrip().startswith(b"ObjectType") or b"\nElementDataFile" in head else ""
