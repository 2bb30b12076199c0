"""Scans and masks, decoded and resized once, then kept for every epoch, run and loader worker."""

import contextlib
import getpass
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from busi_lab.data.index import Case, Index, index_dataset
from busi_lab.data.layouts import classes_of, files_of, find_root, list_cases
from busi_lab.data.options import AS_FOUND, DatasetOptions
from busi_lab.data.resizing import resize_mask, resize_scan
from busi_lab.data.scan import Gray, Mask
from busi_lab.errors import UserError, one_line
from busi_lab.locks import locked
from busi_lab.plurals import counted

_VERSION = 6  # raise when what is stored of the same files would differ
_LEFTOVERS = f".{'[0-9a-f]' * 12}-*px-*"  # temporary folders of builders, of any dataset and size
_CHECKSUMS = "checksums.json"
_DAY = 24 * 3600  # seconds; no builder takes that long

log = logging.getLogger(__name__)


class PixelCache:
    """A dataset at one image size: its index, its scans as bytes and its masks as bits.

    Attributes:
        index: the dataset's index; rows are in the order of the tensors.
        images: uint8 ``[N, S, S]``.
        packed_masks: uint8 ``[N, ceil(S * S / 8)]``, eight pixels a byte.

    The tensors of a stored cache are mapped files, whose memory all processes share. Pickled, such a cache is its
    ``directory`` alone.
    """

    def __init__(
        self, index: Index, image_size: int, images: Tensor, packed_masks: Tensor, directory: Path | None = None
    ) -> None:
        self.index = index
        self.image_size = image_size
        self.images = images
        self.packed_masks = packed_masks
        self._directory = directory

    def __reduce__(self) -> tuple[Callable[..., "PixelCache"], tuple[Any, ...]]:
        """For loader workers that are spawned: open the file again there."""
        if self._directory is not None:
            return _load, (self.index.root, self.image_size, self._directory, self.index.options)
        return PixelCache, (self.index, self.image_size, self.images, self.packed_masks)

    def image(self, number: int) -> Gray:
        """Scan ``number``, uint8 ``[S, S]``."""
        array: Gray = self.images[number].numpy()
        return array

    def mask(self, number: int) -> Gray:
        """Lesion mask ``number``, uint8 ``[S, S]`` of 0 and 1."""
        size = self.image_size
        bits = np.unpackbits(self.packed_masks[number].numpy(), count=size * size)
        return bits.reshape(size, size)

    def with_images(self, images: Mapping[str, Gray]) -> "PixelCache":
        """The same with other scans, uint8 ``[S, S]`` by case id; it is in memory alone."""
        changed = self.images.clone()
        for number, case in enumerate(self.index.cases):
            if case.case_id in images:
                changed[number] = torch.from_numpy(np.array(images[case.case_id]))
        return PixelCache(self.index, self.image_size, changed, self.packed_masks)

    @property
    def nbytes(self) -> int:
        """Memory of scans and masks together, bytes."""
        return self.images.nbytes + self.packed_masks.nbytes


def sizes_of(case: Case) -> dict[str, Tensor]:
    """The items ``size`` and ``spacing`` of a case, see :class:`busi_lab.data.scan_dataset.ScanDataset`."""
    spacing = case.spacing or (float("nan"), float("nan"))
    return {"size": torch.tensor([case.height, case.width]), "spacing": torch.tensor(spacing, dtype=torch.float32)}


def resolve_cache_dir(cache_dir: str | None) -> Path | None:
    """The folder of all caches that a setting means.

    Args:
        cache_dir: a folder; None for none; ``auto`` or nothing for ``~/.cache/busi_lab`` or, where that cannot be
            written to, a temporary folder of this user.

    Raises:
        UserError: the folder begins with a home that is not known, or the temporary one is not this user's.
    """
    if cache_dir is None:
        return None
    if cache_dir not in ("", "auto"):
        try:
            return Path(cache_dir).expanduser()
        except RuntimeError as error:
            raise _unwritable(Path(cache_dir), one_line(error)) from None
    try:
        folder = Path("~/.cache/busi_lab").expanduser()
        _try_writing(folder)
    except (OSError, RuntimeError) as error:
        reason = one_line(error)
    else:
        return folder
    folder = Path("the temporary folder")
    try:
        folder = Path(tempfile.gettempdir()) / f"busi_lab-{_user()}"
        _try_writing(folder)
        if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
            raise PermissionError("it belongs to another user")
    except OSError as error:
        raise _unwritable(folder, one_line(error)) from None
    log.info("no cache at home (%s): %s is used, BUSI_LAB_CACHE names another folder", reason, folder)
    return folder


def _try_writing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _user() -> str:
    """This user's number, which a container's user without a name has too; else the name."""
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


def _unwritable(folder: Path, reason: str) -> UserError:
    return UserError(
        f"the pixel cache cannot be written to {folder} ({reason}); set data.cache_dir or the environment variable "
        "BUSI_LAB_CACHE to a writable folder with space, or data.cache_dir=null"
    )


def open_cache(
    root: str | Path | None, image_size: int, cache_dir: Path | None, options: DatasetOptions = AS_FOUND
) -> PixelCache:
    """Open the cached pixels of a dataset, or decode every file once and store them.

    A stored cache is used while names, sizes and modification times of all files are as they were, and while it
    holds what was written into it; else it is made anew. Of several processes, also on several machines, one makes it
    and the others wait.

    Args:
        root: dataset folder, or its parent.
        image_size: side of the square to resize to, pixels.
        cache_dir: folder of all caches; None keeps the pixels in memory alone.
        options: how the folder is to be read.

    Raises:
        UserError: the dataset has a defect, or the cache cannot be written.
    """
    folder = find_root(root, options)
    if cache_dir is None:
        return _build(folder, image_size, lambda name, shape: np.empty(shape, np.uint8), options)
    described = f" {options.table(folder).resolve()} {options.label_map} {options.lesion_values} {options.layout}"
    labels = "" if options == AS_FOUND else described
    place = hashlib.sha256(f"{_VERSION} {folder.resolve()}{labels}".encode()).hexdigest()[:12]
    prefix = f"{place}-{image_size}px-"
    directory = cache_dir / f"{prefix}{_stamp(folder, options)}"
    if not (directory.is_dir() and _is_sound(directory)):
        with locked_cache(cache_dir, f".{prefix}lock", f"another process reads the images of {folder}: waiting for it"):
            if directory.is_dir() and not _is_sound(directory):
                log.warning("the pixel cache %s is damaged and made anew", directory)
                shutil.rmtree(directory, ignore_errors=True)
            if not directory.is_dir():
                _store(folder, image_size, directory, prefix, options)
    return _load(folder, image_size, directory, options)


@contextmanager
def locked_cache(cache_dir: Path, name: str, wait: str) -> Iterator[None]:
    """Let one process at a time make a part of the cache.

    Args:
        cache_dir: folder of all caches.
        name: of a folder in it, for the lock.
        wait: what is said once where another process makes it.

    Raises:
        UserError: the cache cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(cache_dir / name, wait))
        except OSError as error:
            raise _unwritable(cache_dir, error.strerror or str(error)) from None
        yield


def _is_sound(directory: Path) -> bool:
    """Whether a stored cache holds what was written: a disk, a copy or a person may have changed it since."""
    try:
        return bool(_checksums(directory) == json.loads((directory / _CHECKSUMS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _checksums(directory: Path) -> dict[str, str]:
    """CRC-32 of each file, which takes a second for gigabytes and tells every accident."""
    found = {}
    for name in ("images.npy", "masks.npy", "index.json"):
        value = 0
        with (directory / name).open("rb") as file:
            while part := file.read(1 << 22):
                value = zlib.crc32(part, value)
        found[name] = f"{value:08x}"
    return found


def _stamp(root: Path, options: DatasetOptions) -> str:
    """Sixteen hex digits over names, sizes and modification times of all files."""
    lines = []
    for path in files_of(root, options):
        try:
            status = path.stat()
        except OSError:
            continue  # a broken link: indexing names it
        name = path.relative_to(root) if path.is_relative_to(root) else path
        lines.append(f"{name.as_posix()} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _build(
    root: Path, image_size: int, allocate: Callable[[str, tuple[int, int]], Any], options: DatasetOptions
) -> PixelCache:
    count = len(list_cases(root, options)[0])
    log.info("reading %s of %s once, at %d px", counted(count, "image"), root, image_size)
    images = allocate("images", (count, image_size * image_size))
    masks = allocate("masks", (count, -(-image_size * image_size // 8)))

    def keep(number: int, image: Gray, mask: Mask) -> None:
        images[number] = resize_scan(image, image_size).reshape(-1)
        masks[number] = np.packbits(resize_mask(mask, image_size))

    index = index_dataset(root, keep, options)
    shape = (count, image_size, image_size)
    return PixelCache(index, image_size, torch.from_numpy(images.reshape(shape)), torch.from_numpy(masks))


def _store(root: Path, image_size: int, directory: Path, prefix: str, options: DatasetOptions) -> None:
    """Build the cache in a temporary folder and rename it; older states of the same dataset go."""
    temporary: Path | None = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(directory.parent)
        # Two levels: mkdtemp's folder is closed to other users, the one inside gets the usual rights.
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{prefix}"))
        complete = temporary / "complete"
        complete.mkdir()
        arrays: dict[str, Any] = {}

        def allocate(name: str, shape: tuple[int, int]) -> Any:
            path = f"{complete}/{name}.npy"
            arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            return arrays[name]

        index = _build(root, image_size, allocate, options).index
        for array in arrays.values():
            array.flush()
        rows = [asdict(case) for case in index.cases]
        (complete / "index.json").write_text(json.dumps(rows), encoding="utf-8")
        (complete / _CHECKSUMS).write_text(json.dumps(_checksums(complete)), encoding="utf-8")
        for stale in directory.parent.glob(f"{prefix}*"):
            if stale != directory:  # which another process may just have finished, and be reading
                shutil.rmtree(stale, ignore_errors=True)
        try:
            complete.rename(directory)
        except OSError:
            if not directory.is_dir():  # else another process was faster, with the same content
                raise
    except OSError as error:
        raise _unwritable(directory.parent, error.strerror or str(error)) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(cache_dir: Path) -> None:
    """Remove what builders left behind that were killed."""
    for folder in cache_dir.glob(_LEFTOVERS):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(folder, ignore_errors=True)


def _load(root: Path, image_size: int, directory: Path, options: DatasetOptions) -> PixelCache:
    try:
        rows = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        cases = tuple(
            Case(
                **{
                    **row,
                    "masks": tuple(row["masks"]),
                    "further": tuple(map(tuple, row["further"])),
                    "spacing": row["spacing"] and tuple(row["spacing"]),
                    "lesion_values": tuple(row["lesion_values"]),
                }
            )
            for row in rows
        )
        # Mapped copy-on-write, as torch wants memory that it may write to; nothing is written, so nothing copied.
        tensors = [torch.from_numpy(np.load(directory / f"{name}.npy", mmap_mode="c")) for name in ("images", "masks")]
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"the pixel cache {directory} is damaged ({error}); delete that folder") from None
    images, masks = tensors
    index = Index(root, cases, classes_of(root, options), options)
    return PixelCache(index, image_size, images.view(-1, image_size, image_size), masks, directory)
