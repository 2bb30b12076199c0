import json
import os
import pickle
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from busi_lab.data import cache as cache_module
from busi_lab.data.cache import PixelCache, open_cache, resolve_cache_dir
from busi_lab.data.index import index_dataset, read_case
from busi_lab.data.resizing import resize_mask, resize_scan
from busi_lab.errors import UserError

CONF = Path(__file__).parents[2] / "conf" / "augment"
SIZE = 48


def same(one: PixelCache, two: PixelCache) -> bool:
    return (
        one.index.cases == two.index.cases
        and torch.equal(one.images, two.images)
        and torch.equal(one.packed_masks, two.packed_masks)
    )


def test_the_cache_holds_resized_scans_and_masks(phantom_root: Path, tmp_path: Path) -> None:
    cache = open_cache(phantom_root, SIZE, tmp_path)
    assert cache.index == index_dataset(phantom_root)
    for number, case in enumerate(cache.index.cases):
        image, mask = read_case(phantom_root, case)
        assert np.array_equal(cache.image(number), resize_scan(image, SIZE))
        assert np.array_equal(cache.mask(number), resize_mask(mask, SIZE))
        assert cache.image(number).dtype == cache.mask(number).dtype == np.uint8
        assert cache.mask(number).any() == (case.label != "normal")
    assert same(cache, open_cache(phantom_root, SIZE, tmp_path))
    assert same(cache, open_cache(phantom_root, SIZE, None))


def test_the_second_open_decodes_nothing(phantom_root: Path, tmp_path: Path, reads: list[Path]) -> None:
    open_cache(phantom_root, SIZE, tmp_path)
    assert len(reads) == len(set(reads)) == 60  # 30 scans and their masks
    reads.clear()
    open_cache(phantom_root, SIZE, tmp_path)
    open_cache(phantom_root.parent, SIZE, tmp_path)
    assert reads == []
    open_cache(phantom_root, SIZE + 1, tmp_path)
    assert len(reads) == 60
    reads.clear()
    open_cache(phantom_root, SIZE, tmp_path)  # the other size did not replace it
    assert reads == []


def test_the_cache_notices_changed_added_and_removed_files(
    phantom_copy: Path, tmp_path: Path, reads: list[Path]
) -> None:
    def digest() -> str:
        reads.clear()
        cache = open_cache(phantom_copy, SIZE, tmp_path / "cache")
        assert same(cache, open_cache(phantom_copy, SIZE, None))
        return cache.index.digest

    seen = [digest()]
    scan = phantom_copy / "benign/benign (1).png"
    Image.fromarray(255 - np.asarray(Image.open(scan))).save(scan)
    seen.append(digest())
    for end in ("", "_mask"):
        shutil.copy(phantom_copy / f"benign/benign (1){end}.png", phantom_copy / f"benign/benign (99){end}.png")
    seen.append(digest())
    (phantom_copy / "normal/normal (1).png").unlink()
    (phantom_copy / "normal/normal (1)_mask.png").unlink()
    seen.append(digest())
    assert len(set(seen)) == 4
    assert len(list((tmp_path / "cache").glob("[!.]*"))) == 1  # older states are gone
    os.utime(scan, ns=(1, 1))
    digest()
    assert len(reads) > 60  # a touched file is read again


def test_two_folders_share_no_cache(phantom_root: Path, phantom_copy: Path, tmp_path: Path, reads: list[Path]) -> None:
    for _ in range(2):
        open_cache(phantom_root, SIZE, tmp_path / "cache")
        open_cache(phantom_copy, SIZE, tmp_path / "cache")
    assert len(reads) == 120
    assert len(list((tmp_path / "cache").glob("[!.]*"))) == 2


def test_without_a_folder_nothing_is_written(phantom_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_store", lambda *_: pytest.fail("stored"))
    open_cache(phantom_root, SIZE, None)


def cache_bytes(count: int, size: int) -> int:
    return count * (size**2 + -(-(size**2) // 8))


def test_size_of_the_cache(phantom_root: Path) -> None:
    for size in (SIZE, 33):  # 33 * 33 is no multiple of eight
        cache = open_cache(phantom_root, size, None)
        assert cache.nbytes == cache_bytes(30, size)
        assert cache.mask(0).shape == (size, size)
    assert cache_bytes(780, 224) < 50e6


@pytest.mark.busi
def test_busi_fits_into_50_megabytes(busi_cache: PixelCache, busi_cache_dir: Path) -> None:
    assert busi_cache.nbytes == cache_bytes(780, 224) < 50e6
    assert sum(path.stat().st_size for path in busi_cache_dir.rglob("*.npy")) < 50e6
    lesions = [bool(busi_cache.mask(number).any()) for number in range(780)]
    assert lesions == [case.label != "normal" for case in busi_cache.index.cases]


@pytest.mark.parametrize("below", ["", "deep/down"])
def test_a_folder_that_cannot_be_written_is_named(phantom_root: Path, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        UserError, match=r"the pixel cache cannot be written to .*file.* set data.cache_dir .* BUSI_LAB_CACHE"
    ):
        open_cache(phantom_root, SIZE, tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["index.json", "images.npy", "masks.npy"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_a_damaged_cache_is_made_anew(phantom_root: Path, tmp_path: Path, name: str, damage: str) -> None:
    sound = open_cache(phantom_root, SIZE, None)
    open_cache(phantom_root, SIZE, tmp_path)
    (path,) = tmp_path.rglob(name)
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    assert same(open_cache(phantom_root, SIZE, tmp_path), sound)


@pytest.mark.parametrize("crash", [RuntimeError("bug"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_crash_leaves_no_half_cache(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: BaseException
) -> None:
    calls: list[object] = []

    def fail(image: Any, size: int) -> Any:
        calls.append(image)
        if len(calls) == 10:
            raise crash
        return resize_scan(image, size)

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "resize_scan", fail)
        expected = UserError if isinstance(crash, OSError) else type(crash)
        with pytest.raises(expected, match=r"No space left|bug|^$"):
            open_cache(phantom_root, SIZE, tmp_path)
    assert list(tmp_path.glob("[!.]*")) == []
    assert len(open_cache(phantom_root, SIZE, tmp_path).images) == 30


def test_other_users_may_read_a_cache(phantom_root: Path, tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.mkdir()
    open_cache(phantom_root, SIZE, tmp_path / "cache")
    (directory,) = (tmp_path / "cache").glob("[!.]*")
    assert directory.stat().st_mode == usual.stat().st_mode
    (usual / "file").touch()
    assert {path.stat().st_mode for path in directory.iterdir()} == {(usual / "file").stat().st_mode}


def test_what_killed_builders_left_goes_after_a_day(phantom_root: Path, tmp_path: Path) -> None:
    names = {".0123456789ab-64px-xyz": 2, ".0123456789ab-64px-new": 0.5, ".mine": 9, ".mine-64px-": 9}
    for name, days in names.items():
        (tmp_path / name / "complete").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    open_cache(phantom_root, SIZE, tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".") and "lock" not in path.name} == set(
        names
    ) - {next(iter(names))}


def test_a_stored_cache_is_mapped_and_pickled_as_its_folder(phantom_root: Path, tmp_path: Path) -> None:
    cache, alone = open_cache(phantom_root, SIZE, tmp_path), open_cache(phantom_root, SIZE, None)
    assert not cache.images.is_shared()  # a container's /dev/shm is small
    for one in (cache, alone):
        assert same(pickle.loads(pickle.dumps(one)), one)
    assert len(pickle.dumps(cache)) < 1000 < 30 * SIZE**2 < len(pickle.dumps(alone))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, with a folder for temporary files beside it."""
    for name, variable in (("home", "HOME"), ("temporary", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "home"


@pytest.mark.parametrize("setting", ["auto", ""])
def test_the_cache_is_at_home_where_that_can_be_written(home: Path, setting: str) -> None:
    assert resolve_cache_dir(setting) == home / ".cache/busi_lab"
    assert resolve_cache_dir(None) is None
    assert resolve_cache_dir("some/where") == Path("some/where")
    assert resolve_cache_dir("~/mine") == home / "mine"
    assert list(home.parent.glob("temporary/*")) == []


@pytest.mark.parametrize("trouble", ["read-only", "no entry"])
def test_else_it_is_in_a_temporary_folder_and_that_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    if trouble == "read-only":
        (home / ".cache").write_text("as good as a folder that is closed, for root too")
    else:
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with caplog.at_level("INFO"):
        folder = resolve_cache_dir("auto")
    assert folder is not None and folder.parent == home.parent / "temporary"
    assert folder.name == f"busi_lab-{os.getuid()}"
    (message,) = caplog.messages
    assert str(folder) in message and "BUSI_LAB_CACHE" in message
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    folder.rename(folder.with_name("busi_lab-12345"))  # as another user might have made it
    with pytest.raises(UserError, match=r"busi_lab-12345 \(it belongs to another user\); set data.cache_dir"):
        resolve_cache_dir("auto")


def test_an_unknown_home_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match=r"cannot be written to ~/mine .* set data.cache_dir .* BUSI_LAB_CACHE"):
        resolve_cache_dir("~/mine")


@pytest.mark.parametrize(("value", "expected"), [(None, "auto"), ("", ""), ("mine", "mine")])
def test_the_configured_cache_dir(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str) -> None:
    monkeypatch.delenv("BUSI_LAB_CACHE")
    if value is not None:
        monkeypatch.setenv("BUSI_LAB_CACHE", value)
    assert OmegaConf.load(CONF.parent / "data/busi.yaml").cache_dir == expected


def test_a_defect_is_found_before_a_cache_is_stored(phantom_copy: Path, tmp_path: Path) -> None:
    (phantom_copy / "benign/link.png").symlink_to("gone.png")
    with pytest.raises(UserError, match=r"benign/link.png: foreign entry"):
        open_cache(phantom_copy, SIZE, tmp_path / "cache")
    assert list((tmp_path / "cache").glob("[!.]*")) == []


def test_builders_at_the_same_time_agree(phantom_root: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        caches = list(pool.map(lambda _: open_cache(phantom_root, SIZE, tmp_path), range(6)))
    assert all(same(caches[0], cache) for cache in caches)
    assert len(list(tmp_path.glob("[!.]*"))) == 1


def test_a_slower_builder_leaves_the_faster_ones_cache_alone(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "locked_cache", lambda *_: nullcontext())  # as when one was taken for dead
    build = cache_module._build

    def overtaken(*arguments: Any) -> PixelCache:
        monkeypatch.setattr(cache_module, "_build", build)
        open_cache(phantom_root, SIZE, tmp_path)
        (directory,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
        (directory / "in_use").touch()
        return build(*arguments)

    monkeypatch.setattr(cache_module, "_build", overtaken)
    open_cache(phantom_root, SIZE, tmp_path)
    (directory,) = tmp_path.glob("[!.]*")
    assert (directory / "in_use").exists()


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.sampled_from([16, 33, 64]),
    place=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_resizing_keeps_a_lesion_of_one_pixel(height: int, width: int, size: int, place: tuple[float, float]) -> None:
    mask = np.zeros((height, width), np.bool_)
    row, column = int(place[0] * height), int(place[1] * width)
    mask[row, column] = True
    resized = resize_mask(mask, size)
    assert resized.dtype == np.bool_ and resized.shape == (size, size)
    rows, columns = resized.nonzero()
    assert len(rows) > 0
    assert abs((rows.mean() + 0.5) / size - (row + 0.5) / height) <= 0.5 / size + 0.5 / height
    assert abs((columns.mean() + 0.5) / size - (column + 0.5) / width) <= 0.5 / size + 0.5 / width


def test_resizing_keeps_areas_and_empty_masks() -> None:
    mask = np.zeros((200, 300), np.bool_)
    assert not resize_mask(mask, SIZE).any()
    mask[50:100, 60:180] = True
    assert resize_mask(mask, SIZE).mean() == pytest.approx(mask.mean(), rel=0.1)
    assert np.array_equal(resize_mask(mask, 100), resize_mask(mask, 100).astype(bool))
    assert resize_mask(~np.zeros_like(mask), SIZE).all()


@pytest.mark.parametrize("what", ["a pixel", "a mask", "a case less", "no checksums"])
def test_a_cache_that_has_changed_is_made_anew(
    phantom_root: Path, tmp_path: Path, reads: list[Path], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    sound = open_cache(phantom_root, SIZE, tmp_path)
    images = sound.images.clone()
    (directory,) = tmp_path.glob("[!.]*-48px-*")
    if what in ("a pixel", "a mask"):
        path = directory / ("images.npy" if what == "a pixel" else "masks.npy")
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
    elif what == "a case less":
        rows = json.loads((directory / "index.json").read_text())
        (directory / "index.json").write_text(json.dumps(rows[:-1]))
    else:
        (directory / "checksums.json").unlink()
    reads.clear()
    healed = open_cache(phantom_root, SIZE, tmp_path)
    assert len(reads) == 60
    assert f"the pixel cache {directory} is damaged and made anew" in caplog.messages
    assert torch.equal(healed.images, images)
    assert healed.index == index_dataset(phantom_root)
    reads.clear()
    assert same(healed, open_cache(phantom_root, SIZE, tmp_path))
    assert reads == []
