import io
import random
import stat
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from busi_lab.data import download as module
from busi_lab.data.download import BUSI, DatasetCounts, Limits, download
from busi_lab.data.phantom import generate_phantoms
from busi_lab.errors import UserError
from busi_lab.files import new_folder

EXPECTED = DatasetCounts({"benign": 20, "malignant": 3, "normal": 2}, masks=26)
Files = dict[str, bytes]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A small dataset, names relative to its root; image 20 has two masks."""
    root = generate_phantoms(tmp_path_factory.mktemp("set") / "set", EXPECTED.images, 0, 48, 48)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that must hold nothing but a complete dataset."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def zipped(files: Files, top: str = "Dataset_BUSI_with_GT/", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(top + name, content)
    return buffer.getvalue()


def refused(place: Path, archive: bytes, match: str, limits: Limits | None = None) -> None:
    """Downloading ``archive`` fails with one line and leaves nothing."""
    source = place.parent / "source.zip"
    source.write_bytes(archive)
    with pytest.raises(UserError, match=match) as error:
        download(place / "busi", str(source), EXPECTED, limits)
    assert "\n" not in str(error.value)
    assert list(place.iterdir()) == []
    assert sorted(path.name for path in place.parent.iterdir()) == ["place", "source.zip"]


def contents(root: Path) -> Files:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------- what works


@pytest.mark.parametrize("top", ["Dataset_BUSI_with_GT/", "", "a/b/"])
def test_class_folders_are_found_below_any_one_top(place: Path, files: Files, top: str) -> None:
    source = place.parent / "busi.zip"
    source.write_bytes(zipped(files, top))
    assert download(place / "deep" / "busi", str(source), EXPECTED) == place / "deep" / "busi"
    assert contents(place / "deep" / "busi") == files
    assert [path.name for path in (place / "deep").iterdir()] == ["busi"]
    assert stat.S_IMODE((place / "deep" / "busi").stat().st_mode) == stat.S_IMODE(place.stat().st_mode)


def test_file_url_into_an_empty_folder(place: Path, files: Files) -> None:
    source = place.parent / "with space.zip"
    source.write_bytes(zipped(files))
    assert contents(download(place, source.as_uri(), EXPECTED)) == files


def test_what_macos_adds_is_skipped(place: Path, files: Files) -> None:
    extra = {
        ".DS_Store": b"x",
        "benign/.DS_Store": b"x",
        "__MACOSX/benign/._benign (1).png": b"x",
        "benign/._benign (1).png": b"x",
        "benign/Thumbs.db": b"x",
        "README.txt": b"about",
    }
    source = place.parent / "busi.zip"
    source.write_bytes(zipped(files | extra, top=""))
    assert contents(download(place / "busi", str(source), EXPECTED)) == files


def test_class_folders_with_capitals_are_meant(place: Path, files: Files) -> None:
    source = place.parent / "busi.zip"
    source.write_bytes(zipped({name[0].upper() + name[1:]: content for name, content in files.items()}))
    assert contents(download(place / "busi", str(source), EXPECTED)) == files


def test_the_default_expectation_is_busi(place: Path, files: Files) -> None:
    assert (sum(BUSI.images.values()), BUSI.masks) == (780, 798)
    source = place.parent / "busi.zip"
    source.write_bytes(zipped(files))
    with pytest.raises(UserError, match=r"expected 780 images .* 798 masks; found 25 images .* 26 masks"):
        download(place / "busi", str(source))
    assert list(place.iterdir()) == []


def test_progress_is_for_terminals(
    place: Path, files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = place.parent / "busi.zip"
    source.write_bytes(zipped(files))
    download(place / "quiet", str(source), EXPECTED)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download(place / "busi", str(source), EXPECTED)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "unpack: 100%" in shown.err and "verify: 100%" in shown.err


# --------------------------------------------------------------------------------- destination and source


def test_a_folder_with_files_is_left_alone(place: Path) -> None:
    (place / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        download(place, "nowhere.zip", EXPECTED)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way(place: Path) -> None:
    (place / "file").write_text("mine")
    with pytest.raises(UserError, match="in the way"):
        download(place / "file", "nowhere.zip", EXPECTED)
    with pytest.raises(UserError, match="cannot be written"):
        download(place / "file" / "busi", "nowhere.zip", EXPECTED)


@pytest.mark.parametrize("source", ["nowhere.zip", "file:///nowhere.zip", "ftp://nowhere/busi.zip", "http://[", ""])
def test_a_source_that_is_not_there(place: Path, source: str) -> None:
    with pytest.raises(UserError, match=r"cannot be (read|downloaded)"):
        download(place / "busi", source, EXPECTED)
    assert list(place.iterdir()) == []


def test_interrupt_leaves_nothing(place: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    source = place.parent / "busi.zip"
    source.write_bytes(zipped(files))

    def interrupted(folder: Path, *_: object) -> None:
        assert contents(folder) == files
        assert not (place / "busi").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(place / "busi", str(source), EXPECTED)
    assert list(place.iterdir()) == []


def test_a_full_disk_is_one_line(place: Path) -> None:
    with pytest.raises(UserError, match="No space left"), new_folder(place / "busi"):
        raise OSError(28, "No space left on device")
    assert list(place.iterdir()) == []


# ------------------------------------------------------------------------------------- incomplete datasets


def test_a_missing_image(place: Path, files: Files) -> None:
    short = {name: content for name, content in files.items() if name != "normal/normal (2).png"}
    refused(place, zipped(short), r"expected 25 images \(20 benign, 3 malignant, 2 normal\).*1 normal")


def test_a_missing_mask(place: Path, files: Files) -> None:
    short = {name: content for name, content in files.items() if name != "benign/benign (3)_mask.png"}
    refused(place, zipped(short), "26 masks; found .* 25 masks")


def test_right_counts_but_a_mask_without_its_image(place: Path, files: Files) -> None:
    moved = dict(files)
    moved["benign/benign (77)_mask.png"] = moved.pop("benign/benign (3)_mask.png")
    refused(place, zipped(moved), r"'benign \(3\)' lacks its image or its mask")


@pytest.mark.parametrize("name", ["benign/malignant (9).png", "benign/scan.png", "normal/normal (2).jpg"])
def test_names_that_are_not_busis(place: Path, files: Files, name: str) -> None:
    refused(place, zipped(files | {name: files["benign/benign (1).png"]}), "is no BUSI name")


@pytest.mark.parametrize(
    "damage",
    [
        lambda png: png[: len(png) // 2],
        lambda png: b"",
        lambda png: b"<html>",
        lambda png: b"GIF89a" + png,
        lambda png: png[:60] + bytes(40) + png[100:],
    ],
    ids=["cut", "empty", "html", "other", "zeroed"],
)
def test_a_png_that_cannot_be_decoded(place: Path, files: Files, damage: Callable[[bytes], bytes]) -> None:
    name = "malignant/malignant (2).png"
    refused(place, zipped(files | {name: damage(files[name])}), r"malignant \(2\)\.png' is no intact PNG")


# ----------------------------------------------------------------------------------------- damaged archives


@pytest.mark.parametrize("archive", [b"", b"<html>log in</html>", b"PK\x03\x04"], ids=["empty", "html", "magic"])
def test_no_zip_file(place: Path, archive: bytes) -> None:
    refused(place, archive, "is no intact zip file")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_zip_file(place: Path, files: Files, share: float) -> None:
    archive = zipped(files)
    refused(place, archive[: int(share * len(archive))], "is no intact zip file")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_byte_of_content(place: Path, files: Files, method: int) -> None:
    archive = bytearray(zipped(files, method=method))
    archive[len(archive) // 2] ^= 0xFF
    refused(place, bytes(archive), "is no intact zip file")


def test_random_damage_is_harmless_or_a_user_error(place: Path, files: Files) -> None:
    few = {name: content for name, content in files.items() if name.startswith("malignant")}
    expected = DatasetCounts({"malignant": 3}, 3)
    intact, rng, source = zipped(few), random.Random(0), place.parent / "source.zip"
    for attempt in range(150):
        archive = bytearray(intact)
        for _ in range(rng.choice((1, 5))):
            archive[rng.randrange(len(archive))] = rng.randrange(256)
        source.write_bytes(archive)
        try:
            root = download(place / str(attempt), str(source), expected)
        except UserError:
            assert not (place / str(attempt)).exists()
        else:
            assert sorted(contents(root).values()) == sorted(few.values())


# ----------------------------------------------------------------------------------------- hostile archives


def with_entry(files: Files, entry: zipfile.ZipInfo | str, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO(zipped(files))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(entry, content)
    return buffer.getvalue()


def patched(archive: bytes, local: tuple[int, str, int], central: tuple[int, str, int]) -> bytes:
    """Overwrite a field of the last entry: offset in the header, struct format, value."""
    changed = bytearray(archive)
    for magic, (offset, kind, value) in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        struct.pack_into(kind, changed, archive.rindex(magic) + offset, value)
    return bytes(changed)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "benign/../../evil.png",
        "benign/..",
        "/tmp/evil.png",
        "C:/evil.png",
        "c:evil.png",
        "..\\evil.png",
        "benign\\evil.png",
        "\\\\host\\evil.png",
        "__MACOSX/../../evil.png",
    ],
)
def test_paths_that_lead_outside(place: Path, files: Files, name: str) -> None:
    refused(place, with_entry(files, name), "points outside the archive")


def test_a_name_with_a_null_byte(place: Path, files: Files) -> None:
    archive = with_entry(files, "benign/evil#png").replace(b"evil#png", b"evil\0png")
    refused(place, archive, "points outside the archive")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(place: Path, files: Files, kind: int) -> None:
    entry = zipfile.ZipInfo("benign/benign (99).png")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    refused(place, with_entry(files, entry, b"/etc/passwd"), "is a link or device")


def test_an_encrypted_entry(place: Path, files: Files) -> None:
    archive = with_entry(files, "benign/benign (99).png")
    refused(place, patched(archive, (6, "<H", 1), (8, "<H", 1)), "is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_that_can_unfold_without_bound(place: Path, files: Files, method: int) -> None:
    refused(place, zipped(files, method=method), "is packed by method")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["benign (1).png", "BENIGN (1).png", "./benign (1).png"])
def test_an_entry_twice(place: Path, files: Files, name: str) -> None:
    refused(place, with_entry(files, f"Dataset_BUSI_with_GT/benign/{name}"), "is there twice")


def test_a_second_set_of_class_folders(place: Path, files: Files) -> None:
    refused(place, with_entry(files, "copy/benign/benign (1).png"), "expected one set of folders")
    nested = "Dataset_BUSI_with_GT/Dataset_BUSI_with_GT/benign/benign (1).png"
    refused(place, with_entry(files, nested), "expected one set of folders")


def test_no_class_folders(place: Path) -> None:
    refused(place, zipped({"cat.png": b"x"}), "found them in: none")


def test_a_bomb_by_ratio(place: Path, files: Files) -> None:
    entry = zipfile.ZipInfo("benign/benign (99).png")
    entry.compress_type = zipfile.ZIP_DEFLATED
    refused(place, with_entry(files, entry, bytes(2 << 20)), "bomb")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(total=40_000), "bomb"),
        (Limits(file=1_000), "bomb"),
        (Limits(entries=10), "expected at most 10"),
    ],
)
def test_limits(place: Path, files: Files, limits: Limits, message: str) -> None:
    refused(place, zipped(files), message, limits)


def test_a_declared_size_above_the_cap(place: Path, files: Files) -> None:
    archive = with_entry(files, "benign/benign (99).png")
    refused(place, patched(archive, (22, "<I", 3 << 30), (24, "<I", 3 << 30)), "bomb")


@pytest.mark.parametrize("declared", [10, 900_000])
def test_a_declared_size_that_lies(place: Path, files: Files, declared: int) -> None:
    entry = zipfile.ZipInfo("Dataset_BUSI_with_GT/benign/benign (99).png")
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive = with_entry(files, entry, bytes(500_000))
    refused(place, patched(archive, (22, "<I", declared), (24, "<I", declared)), "is no intact zip file")


# ------------------------------------------------------------------------------------------------- by HTTP


class Handler(BaseHTTPRequestHandler):
    archive = b""

    def do_GET(self) -> None:
        if self.path == "/missing.zip":
            self.send_error(404)
            return
        if self.path == "/moved.zip":
            self.send_response(302)
            self.send_header("Location", "/busi.zip")
            self.end_headers()
            return
        body = self.archive[: len(self.archive) // 2] if "cut" in self.path else self.archive
        self.send_response(200)
        if self.path != "/cut-unannounced.zip":
            length = "many" if self.path == "/nonsense.zip" else str(len(self.archive))
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.path == "/stalled.zip":
            self.wfile.write(body[:100])
            self.wfile.flush()
            self.rfile.read(1)  # until the client hangs up
            return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def server(files: Files) -> Iterator[str]:
    Handler.archive = zipped(files)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("name", ["busi.zip", "moved.zip"])
def test_http(place: Path, files: Files, server: str, name: str) -> None:
    assert contents(download(place / "busi", f"{server}/{name}", EXPECTED)) == files
    assert [path.name for path in place.iterdir()] == ["busi"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.zip", "404"),
        ("cut.zip", r"broke off: expected \d+ bytes, received \d+"),
        ("cut-unannounced.zip", "is no intact zip file"),
        ("nonsense.zip", "cannot be downloaded"),
        ("stalled.zip", "timed out"),
    ],
)
def test_http_failures(place: Path, server: str, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    with pytest.raises(UserError, match=message) as error:
        download(place / "busi", f"{server}/{name}", EXPECTED)
    assert f"{server}/{name}" in str(error.value)
    assert list(place.iterdir()) == []


def test_a_response_above_the_cap(place: Path, server: str) -> None:
    with pytest.raises(UserError, match="is larger than 1000 bytes"):
        download(place / "busi", f"{server}/busi.zip", EXPECTED, Limits(total=1000))
    assert list(place.iterdir()) == []


def test_a_refused_connection(place: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    with pytest.raises(UserError, match="refused"):
        download(place / "busi", f"http://127.0.0.1:{port}/busi.zip", EXPECTED)
    assert list(place.iterdir()) == []


# ------------------------------------------------------------------------------------------------- kaggle


def fake_kagglehub(monkeypatch: pytest.MonkeyPatch, dataset_download: Callable[[str], str]) -> None:
    fake = types.ModuleType("kagglehub")
    fake.dataset_download = dataset_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kagglehub", fake)


def test_without_kagglehub_the_extra_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match="run pip install kagglehub or give a zip file by --from"):
        download(place / "busi")
    assert list(place.iterdir()) == []


def test_kagglehub_failures_are_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(handle: str) -> str:
        raise RuntimeError(f"403 for {handle}\nlog in")

    fake_kagglehub(monkeypatch, fails)
    with pytest.raises(UserError, match="403 for aryashah2k/breast-ultrasound-images-dataset log in"):
        download(place / "busi")
    assert list(place.iterdir()) == []


def test_kagglehubs_copy_is_verified_and_kept(place: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = place.parent / "cache"
    zipfile.ZipFile(io.BytesIO(zipped(files))).extractall(cache)
    fake_kagglehub(monkeypatch, lambda handle: str(cache))
    assert contents(download(place / "busi", expected=EXPECTED)) == files
    assert contents(cache / "Dataset_BUSI_with_GT") == files
    with pytest.raises(UserError, match="expected 780 images"):
        download(place / "again")
