"""Fetch BUSI, verify it, and only then put it in place.

Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28:104863, 2020. The copy on Kaggle,
which nearly all papers use, has 780 images and 798 masks; 17 images have more than one mask.
"""

import http.client
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlparse
from urllib.request import url2pathname, urlopen

from PIL import Image
from tqdm import tqdm

from busi_lab.classes import BUSI as BUSI_CLASSES
from busi_lab.data.names import is_system_file
from busi_lab.errors import UserError, one_line
from busi_lab.files import new_folder

KAGGLE_HANDLE = "aryashah2k/breast-ultrasound-images-dataset"
BUSI_COUNTS: Mapping[str, int] = {"benign": 437, "malignant": 210, "normal": 133}
BUSI_MASKS = 798

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18
MIB = 1 << 20

_UNSAFE = re.compile(r"\\|\x00|^/|^[A-Za-z]:|(^|/)\.\.(/|$)")  # could lead out of the folder
_NAME = re.compile(r"(?P<image>(?P<label>[a-z]+) \(\d+\))(?P<mask>_mask(?:_\d+)?)?\.png")


@dataclass(frozen=True)
class DatasetCounts:
    """How many images of each class and how many mask files a complete dataset has."""

    images: Mapping[str, int]
    masks: int

    def __str__(self) -> str:
        counts = ", ".join(f"{self.images.get(label, 0)} {label}" for label in BUSI_CLASSES.names)
        return f"{sum(self.images.values())} images ({counts}) and {self.masks} masks"


BUSI = DatasetCounts(BUSI_COUNTS, BUSI_MASKS)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most; BUSI has 1,578 files of 260 MB in all.

    Attributes:
        total: unpacked bytes, and bytes of the archive.
        file: unpacked bytes of one entry.
        entries: entries, folders included.
        ratio: unpacked over packed size of an entry above 1 MiB; scans and masks as PNG stay near 1.
    """

    total: int = 2048 * MIB
    file: int = 64 * MIB
    entries: int = 20_000
    ratio: int = 100


def download(
    destination: Path,
    source: str | None = None,
    expected: DatasetCounts | None = None,
    limits: Limits | None = None,
) -> Path:
    """Fetch a dataset in BUSI's layout into ``destination/{benign,malignant,normal}``.

    The archive may hold the class folders at its top or in one folder, such as ``Dataset_BUSI_with_GT/``.
    ``destination`` appears by one rename after every file was counted and decoded; until then, and after any
    failure or interrupt, nothing is there.

    Args:
        destination: folder to create; may exist if empty.
        source: a zip file, or an http, https or file URL of one; None asks Kaggle through kagglehub, which
            keeps its own copy in its cache.
        expected: what must be found; None means BUSI.
        limits: sizes above which an archive is refused; None means the defaults.

    Returns:
        ``destination``.

    Raises:
        UserError: ``destination`` holds files; the source cannot be had, is damaged, hostile or incomplete.
    """
    limits = limits or Limits()
    with new_folder(destination) as folder:
        if source is None:
            _copy_from_kaggle(folder)
        elif source.lower().startswith(("http://", "https://")):
            with tempfile.TemporaryFile(dir=folder.parent) as archive:
                _fetch(source, archive, limits)
                _extract(archive, source, folder, limits)
        else:
            with _open_local(source) as archive:
                _extract(archive, source, folder, limits)
        _verify(folder, source or KAGGLE_HANDLE, expected or BUSI)
    return destination


def _open_local(source: str) -> IO[bytes]:
    try:
        path = url2pathname(urlparse(source).path) if source.startswith("file:") else source
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise UserError(f"{source} cannot be read: {one_line(error)}; expected a zip file or its URL") from None


def _copy_from_kaggle(folder: Path) -> None:
    try:
        import kagglehub
    except ImportError:
        raise UserError("kagglehub is not installed; run pip install kagglehub or give a zip file by --from") from None
    try:
        cached = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # whatever its network, login and cache code raises
        raise UserError(
            f"Kaggle did not give {KAGGLE_HANDLE}: {one_line(error)}; try later, or give a zip file by --from"
        ) from None
    names = [path.relative_to(cached).as_posix() for path in sorted(cached.rglob("*.png")) if path.is_file()]
    for name, target in _targets(names, KAGGLE_HANDLE).items():
        (folder / target).parent.mkdir(exist_ok=True)
        shutil.copyfile(cached / name, folder / target)


def _fetch(url: str, archive: IO[bytes], limits: Limits) -> None:
    """Copy the body of ``url`` to ``archive``, all of it or an error."""
    advice = "try again, or download it by hand and give the file"
    try:
        with urlopen(url, timeout=TIMEOUT) as response:
            declared = response.headers.get("Content-Length")
            length = int(declared) if declared else None
            received = 0
            with tqdm(total=length, desc="download", unit="B", unit_scale=True, disable=None) as bar:
                while chunk := response.read(CHUNK):
                    received += len(chunk)
                    if received > limits.total:
                        raise UserError(f"{url} is larger than {limits.total} bytes; expected BUSI's archive")
                    archive.write(chunk)
                    bar.update(len(chunk))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{url} cannot be downloaded: {one_line(error)}; {advice}") from None
    if length is not None and received != length:
        raise UserError(f"{url} broke off: expected {length} bytes, received {received}; {advice}")


def _extract(archive: IO[bytes], source: str, folder: Path, limits: Limits) -> None:
    """Check every entry of ``archive``, then write those in class folders to ``folder/CLASS/``."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            _check_entries(entries, source, limits)
            targets = _targets([entry.filename for entry in entries if not entry.is_dir()], source)
            with tqdm(total=len(targets), desc="unpack", disable=None) as bar:  # on a terminal only
                for name, target in targets.items():
                    _write_entry(opened, opened.getinfo(name), folder / target)
                    bar.update()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{source} is no intact zip file: {one_line(error)}; expected BUSI's archive, download it again"
        ) from None


def _check_entries(entries: list[zipfile.ZipInfo], source: str, limits: Limits) -> None:
    """Refuse an archive that could write elsewhere, fill the disk, or that cannot be read.

    Raises:
        UserError: names the first bad entry.
    """
    if len(entries) > limits.entries:
        raise UserError(f"{source} has {len(entries)} entries; expected at most {limits.entries}; refused")
    total = 0
    for entry in entries:
        packed, size = entry.compress_size, entry.file_size
        kind = stat.S_IFMT(entry.external_attr >> 16)
        total += size
        problem = None
        if _UNSAFE.search(entry.orig_filename) or _UNSAFE.search(entry.filename):
            problem = "points outside the archive"
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "is a link or device"
        elif entry.flag_bits & 0x1:
            problem = "is encrypted"
        elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = f"is packed by method {entry.compress_type}, not deflate,"
        elif size > limits.file or total > limits.total or (size > MIB and size > limits.ratio * packed):
            problem = f"makes it a bomb ({packed} bytes packed, {size} unpacked, {total} so far)"
        if problem:
            raise UserError(f"{source}: entry {entry.orig_filename!r} {problem}; refused, expected plain files")


def _targets(names: list[str], source: str) -> dict[str, str]:
    """Map file names in an archive to ``CLASS/FILE``; what lies in no class folder is left out.

    Raises:
        UserError: class folders are missing or there are several sets of them, or a file is there twice.
    """
    targets: dict[str, str] = {}
    roots, seen = set[str](), set[str]()
    for name in names:
        path = PurePosixPath(name)
        label = path.parent.name.lower()
        if label not in BUSI_CLASSES.names or any(is_system_file(Path(part)) for part in path.parts):
            continue
        targets[name] = f"{label}/{path.name}"
        roots.add(str(path.parent.parent))
        if str(path).casefold() in seen:
            raise UserError(f"{source}: entry {name!r} is there twice; refused, expected every file once")
        seen.add(str(path).casefold())
    if len(roots) != 1:
        found = " and ".join(sorted(roots)) or "none"
        raise UserError(
            f"{source}: expected one set of folders {', '.join(BUSI_CLASSES.names)}; found them in: {found}"
        )
    return targets


def _write_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Unpack one entry; never more than its declared size, where zipfile stops and finds the checksum wrong.

    Raises:
        zipfile.BadZipFile: wrong checksum, or fewer bytes than declared.
    """
    path.parent.mkdir(exist_ok=True)
    with opened.open(entry) as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file, CHUNK)
        if file.tell() != entry.file_size:
            raise zipfile.BadZipFile(f"{entry.filename!r} has {file.tell()} bytes, declared {entry.file_size}")


def _verify(folder: Path, source: str, expected: DatasetCounts) -> None:
    """Count and decode everything in ``folder``.

    Raises:
        UserError: a PNG has an unknown name or cannot be decoded, an image lacks its mask or a mask its
            image, or the counts are not the expected ones.
    """
    images: Counter[str] = Counter()
    stems: dict[str, set[str]] = {"": set(), "_mask": set()}
    masks = 0
    files = sorted(folder.glob("*/*"))
    for path in tqdm(files, "verify", disable=None):
        name = _NAME.fullmatch(path.name)
        where = f"{source}: {path.relative_to(folder).as_posix()!r}"
        if name is None or name["label"] != path.parent.name:
            raise UserError(f"{where} is no BUSI name; expected 'CLASS (N).png' or 'CLASS (N)_mask.png'")
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            problem = one_line(error).replace(str(path), path.name)
            raise UserError(f"{where} is no intact PNG: {problem}; download the archive again") from None
        masks += bool(name["mask"])
        images[path.parent.name] += not name["mask"]
        if name["mask"] in (None, "_mask"):
            stems[name["mask"] or ""].add(name["image"])
    found = DatasetCounts(images, masks)
    if masks != expected.masks or any(images[label] != expected.images.get(label, 0) for label in BUSI_CLASSES.names):
        raise UserError(f"{source} is incomplete or another dataset: expected {expected}; found {found}")
    if unpaired := sorted(stems[""] ^ stems["_mask"]):
        raise UserError(f"{source}: {unpaired[0]!r} lacks its image or its mask; expected one of each")
