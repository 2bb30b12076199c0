"""A file that somebody has sent -> scans, one frame at a time; nothing else of the file is kept."""

import hashlib
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from busi_lab.data.reading import read_scans
from busi_lab.data.scan import Origin, Scan, UnreadableImageError
from busi_lab.data.spacing import Spacing, parse_spacing
from busi_lab.errors import UserError, one_line

MOST_FRAMES = 600
"""Of a file: the frames behind them are left out, and the page says so."""


@dataclass(frozen=True)
class Upload:
    """A file as the page knows it.

    Attributes:
        path: where it lies until the visitor leaves.
        name: as its owner calls it, without folders, never used as a path.
        frames: of them at most :data:`MOST_FRAMES`.
        cut: whether it has more.
        digest: of its bytes, twelve hex digits.
    """

    path: Path
    name: str
    frames: int
    cut: bool
    digest: str

    @property
    def several(self) -> bool:
        """Whether it is a cine loop."""
        return self.frames > 1


def open_upload(path: Path, name: str) -> Upload:
    """Read all of a file once, so that its frames are counted and are known to be sound.

    Raises:
        UserError: it holds no picture, or is damaged.
    """
    shown = name.replace("\\", "/").rpartition("/")[2] or "scan"
    frames, cut = 0, False
    try:
        with closing(read_scans(path)) as scans:
            for _ in scans:
                if frames == MOST_FRAMES:
                    cut = True
                    break
                frames += 1
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while part := file.read(1 << 20):
                digest.update(part)
    except (UnreadableImageError, OSError) as error:
        raise UserError(f"{shown}: {_reason(error)}; choose another file") from None
    return Upload(path, shown, frames, cut, digest.hexdigest()[:12])


def read_frame(upload: Upload, number: int, spacing: str = "") -> Scan:
    """One frame, without the numbers that name it in a hospital's archive.

    Args:
        upload: the file.
        number: from 0.
        spacing: millimetres per pixel as a person writes them, where the file does not tell; empty for unknown.

    Raises:
        UserError: there is no such frame any more, or the spacing is none.
    """
    own = _spacing(spacing)
    if not upload.path.exists():
        raise UserError(f"{upload.name}: the file is not there any more; choose it again")
    try:
        with closing(read_scans(upload.path)) as scans:
            for position, scan in enumerate(scans):
                if position == number:
                    told = scan.spacing is not None or scan.regions
                    return replace(scan, spacing=scan.spacing if told else own, origin=_anonymous(scan.origin))
    except (UnreadableImageError, OSError) as error:
        raise UserError(f"{upload.name}: {_reason(error)}; choose it again") from None
    raise UserError(f"{upload.name}: frame {number + 1} is not there; choose another")


def _reason(error: Exception) -> str:
    """What went wrong, without the path of a temporary file."""
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else one_line(error)


def _spacing(text: str) -> Spacing | None:
    if not text.strip():
        return None
    try:
        return parse_spacing(text)
    except ValueError as error:
        raise UserError(str(error)) from None


def _anonymous(origin: Origin) -> Origin:
    return replace(origin, sop_instance_uid=None)
