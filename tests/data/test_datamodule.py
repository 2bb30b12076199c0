import os
import pickle
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from busi_lab.data import cache as cache_module
from busi_lab.data import index as index_module
from busi_lab.data.cache import PixelCache, open_cache, resize_mask, resize_scan, resolve_cache_dir
from busi_lab.data.datamodule import BusiDataModule, EpochSampler
from busi_lab.data.index import index_dataset, read_case
from busi_lab.data.splits import make_manifest, write_manifest
from busi_lab.data.transforms import Augmentation
from busi_lab.errors import UserError
from busi_lab.run_directory import CLASSES

CONF = Path(__file__).parents[2] / "conf" / "augment"
PAPER = {
    "rotation": 5.0,
    "shift": 0.1,
    "shear": 0.05,
    "zoom": 0.05,
    "brightness": [1.0, 1.4],
    "horizontal_flip": True,
}
SIZE = 48


def settings(name: str) -> Mapping[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded from now on."""
    seen: list[Path] = []

    def count(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda path: (seen.append(path), read(path))[1]

    for name in ("read_image", "read_mask"):
        monkeypatch.setattr(index_module, name, count(getattr(index_module, name)))
    return seen


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
    assert len(list((tmp_path / "cache").iterdir())) == 1  # older states are gone
    os.utime(scan, ns=(1, 1))
    digest()
    assert len(reads) > 60  # a touched file is read again


def test_two_folders_share_no_cache(phantom_root: Path, phantom_copy: Path, tmp_path: Path, reads: list[Path]) -> None:
    for _ in range(2):
        open_cache(phantom_root, SIZE, tmp_path / "cache")
        open_cache(phantom_copy, SIZE, tmp_path / "cache")
    assert len(reads) == 120
    assert len(list((tmp_path / "cache").iterdir())) == 2


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
def test_busi_fits_into_50_megabytes(busi_root: Path, tmp_path: Path) -> None:
    cache = open_cache(busi_root, 224, tmp_path)
    assert cache.nbytes == cache_bytes(780, 224) < 50e6
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npy")) < 50e6
    lesions = [bool(cache.mask(number).any()) for number in range(780)]
    assert lesions == [case.label != "normal" for case in cache.index.cases]


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
def test_a_damaged_cache_is_named(phantom_root: Path, tmp_path: Path, name: str, damage: str) -> None:
    open_cache(phantom_root, SIZE, tmp_path)
    (path,) = tmp_path.rglob(name)
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"the pixel cache {path.parent} is damaged .* delete that folder"):
        open_cache(phantom_root, SIZE, tmp_path)


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
    assert list(tmp_path.iterdir()) == []
    assert len(open_cache(phantom_root, SIZE, tmp_path).images) == 30


def test_other_users_may_read_a_cache(phantom_root: Path, tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.mkdir()
    open_cache(phantom_root, SIZE, tmp_path / "cache")
    (directory,) = (tmp_path / "cache").iterdir()
    assert directory.stat().st_mode == usual.stat().st_mode
    (usual / "file").touch()
    assert {path.stat().st_mode for path in directory.iterdir()} == {(usual / "file").stat().st_mode}


def test_what_killed_builders_left_goes_after_a_day(phantom_root: Path, tmp_path: Path) -> None:
    names = {".0123456789ab-64px-xyz": 2, ".0123456789ab-64px-new": 0.5, ".mine": 9, ".mine-64px-": 9}
    for name, days in names.items():
        (tmp_path / name / "complete").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    open_cache(phantom_root, SIZE, tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set(names) - {next(iter(names))}


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
    assert list((tmp_path / "cache").iterdir()) == []


def test_builders_at_the_same_time_agree(phantom_root: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        caches = list(pool.map(lambda _: open_cache(phantom_root, SIZE, tmp_path), range(6)))
    assert all(same(caches[0], cache) for cache in caches)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_slower_builder_leaves_the_faster_ones_cache_alone(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = cache_module._build

    def overtaken(*arguments: Any) -> PixelCache:
        monkeypatch.setattr(cache_module, "_build", build)
        open_cache(phantom_root, SIZE, tmp_path)
        (directory,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
        (directory / "in_use").touch()
        return build(*arguments)

    monkeypatch.setattr(cache_module, "_build", overtaken)
    open_cache(phantom_root, SIZE, tmp_path)
    (directory,) = tmp_path.iterdir()
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


# ------------------------------------------------------------------------------------------ augmentation

SIDE = 200
SEEDS = range(250)


def warps(setting: Mapping[str, Any], seeds: Iterable[int] = SEEDS) -> NDArray[np.float64]:
    """The affine maps ``[N, 2, 3]`` (x, y about the centre, pixels) by which an augmentation moves points.

    Found by warping two ramps, whose gray levels tell where each pixel came from.
    """
    augmentation = Augmentation(setting)
    across = np.tile(np.arange(SIDE, dtype=np.uint8), (SIDE, 1))
    centre = (SIDE - 1) / 2
    maps = []
    for seed in seeds:
        came = [augmentation(np.ascontiguousarray(ramp), None, seed)[0].astype(float) for ramp in (across, across.T)]
        inside = np.all([(ramp > 2) & (ramp < SIDE - 3) for ramp in came], axis=0)
        y, x = np.nonzero(inside)
        there = np.stack([x - centre, y - centre, np.ones(len(x))], axis=1)
        back = np.stack([ramp[inside] - centre for ramp in came], axis=1)
        linear, *_ = np.linalg.lstsq(there, back, rcond=None)
        inverse = np.vstack([linear.T, [0, 0, 1]])
        maps.append(np.linalg.inv(inverse)[:2])
    return np.array(maps)


def assert_fills(values: NDArray[np.float64], low: float, high: float, tolerance: float) -> None:
    """All values are within the bounds, and together they use them."""
    assert low - tolerance <= values.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < values.max() <= high + tolerance


def test_the_configured_paper_set_is_the_published_table() -> None:
    assert settings("paper") == PAPER
    assert not Augmentation(settings("none"))._pipeline


def test_rotation_is_up_to_5_degrees() -> None:
    maps = warps({"rotation": PAPER["rotation"]})
    assert_fills(np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0])), -5, 5, 0.05)
    assert np.allclose(np.linalg.det(maps[:, :, :2]), 1, atol=0.005)
    assert np.abs(maps[:, :, 2]).max() < 0.7  # about the centre


def test_shift_is_up_to_a_tenth_of_the_side_along_both_axes() -> None:
    maps = warps({"shift": PAPER["shift"]})
    for axis in (0, 1):
        assert_fills(maps[:, axis, 2] / SIDE, -0.1, 0.1, 0.003)
    assert abs(np.corrcoef(maps[:, :, 2].T)[0, 1]) < 0.2
    assert np.allclose(maps[:, :, :2], np.eye(2), atol=0.005)


def test_shear_is_up_to_005_radians_along_x() -> None:
    maps = warps({"shear": PAPER["shear"]})
    assert_fills(np.arctan(maps[:, 0, 1]), -0.05, 0.05, 0.002)
    assert np.abs(maps[:, 1, 0]).max() < 0.002
    assert np.allclose(maps[:, [0, 1], [0, 1]], 1, atol=0.003)


def test_zoom_is_up_to_5_percent_of_each_axis_on_its_own() -> None:
    maps = warps({"zoom": PAPER["zoom"]})
    for axis in (0, 1):
        assert_fills(maps[:, axis, axis], 0.95, 1.05, 0.002)
    assert abs(np.corrcoef(maps[:, 0, 0], maps[:, 1, 1])[0, 1]) < 0.2
    assert np.abs(maps[:, [0, 1], [1, 0]]).max() < 0.002


def test_half_of_the_scans_are_flipped_left_to_right() -> None:
    maps = warps({"horizontal_flip": True})
    assert set(np.round(maps[:, 0, 0])) == {-1, 1}
    assert 0.4 < np.mean(maps[:, 0, 0] < 0) < 0.6
    assert np.allclose(maps[:, 1, 1], 1, atol=1e-6)


def test_brightness_multiplies_by_1_to_14() -> None:
    augmentation = Augmentation({"brightness": PAPER["brightness"]})
    levels = np.repeat(np.array([[0, 50, 100, 150, 250]], np.uint8), 5, axis=0)
    factors = []
    for seed in SEEDS:
        black, dark, gray, light, white = augmentation(levels, None, seed)[0][0].astype(float)
        factors.append(gray / 100)
        assert black == 0
        assert abs(2 * dark - gray) <= 2 and abs(light - 1.5 * gray) <= 2
        assert white == pytest.approx(min(255, 2.5 * gray), abs=3)
    assert_fills(np.array(factors), 1.0, 1.4, 0.01)


def test_edge_pixels_repeat() -> None:
    image = np.random.default_rng(0).integers(60, 200, (SIDE, SIDE), dtype=np.uint8)
    for seed in range(40):
        assert Augmentation(PAPER)(image, None, seed)[0].min() >= 60  # a fill would be black
    shifts = warps({"shift": 0.1}, range(10))[:, 0, 2]
    seed = int(np.abs(shifts).argmax())
    shift = shifts[seed]
    margin = int(abs(shift)) - 1
    assert margin > 3
    edge = Augmentation({"shift": 0.1})(image, None, seed)[0]
    edge = edge if shift > 0 else edge[:, ::-1]
    assert (edge[:, :margin] == edge[:, :1]).all() and not (edge[:, -margin:] == edge[:, -1:]).all()


def test_steps_are_independent_of_each_other() -> None:
    image = np.full((SIDE, SIDE), 50, np.uint8)
    image[:, 40:80] = 150  # off centre: a flip shows
    drawn = []
    for seed in SEEDS:
        row = Augmentation({"shift": 0.1, "brightness": [1.0, 1.4], "horizontal_flip": True})(image, None, seed)[0][100]
        bar = np.flatnonzero(row > 1.5 * row.min())
        flipped = bar.mean() > SIDE / 2
        shift = (SIDE - 1 - bar.mean() if flipped else bar.mean()) - 59.5
        drawn.append([shift, flipped, float(row.min())])
    correlation = np.corrcoef(np.array(drawn).T)
    assert np.abs(correlation - np.eye(3)).max() < 0.2


def dice(one: NDArray[Any], two: NDArray[Any]) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_scan_and_mask_move_together(name: str) -> None:
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[60:120, 40:110] = 255
    augmentation = Augmentation(settings(name))
    moved = 0
    for seed in range(40):
        warped, mask = augmentation(image, image // 255, seed)
        assert mask is not None and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
        assert dice(warped > int(warped.max()) / 2, mask > 0) > 0.9
        moved += dice(mask > 0, image > 0) < 0.9
    assert moved > 20


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_a_seed_means_one_result(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    before = image.copy()
    mask = (image > 200).astype(np.uint8)
    one, two = (Augmentation(settings(name)) for _ in range(2))
    results = []
    for seed in range(10):
        scan, lesion = one(image, mask, seed)
        assert scan.shape == (64, 64) and scan.dtype == np.uint8
        two(image, mask, seed + 100)  # what came before does not matter
        again, lesion_again = two(image, mask, seed)
        assert np.array_equal(scan, again) and np.array_equal(lesion, lesion_again)  # type: ignore[arg-type]
        results.append(scan.tobytes())
    assert len(set(results)) == 10
    assert np.array_equal(image, before)


def test_no_setting_no_change() -> None:
    image = np.zeros((8, 8), np.uint8)
    mask = image.copy()
    for nothing in ({}, {"rotation": 0.0, "brightness": None, "horizontal_flip": False}):
        scan, lesion = Augmentation(nothing)(image, mask, 0)
        assert scan is image and lesion is mask


def test_speckle_has_the_deviation_asked_for() -> None:
    image = np.full((SIDE, SIDE), 100, np.uint8)
    scans = [Augmentation({"speckle": 0.1})(image, None, seed)[0] for seed in range(20)]
    noisy = [scan.std() for scan in scans if scan.std() > 0]
    assert 4 < len(noisy) < 16
    assert np.allclose(noisy, 10, atol=0.3)


# ----------------------------------------------------------------------------------------- EpochSampler

LABELS = [0] * 315 + [1] * 151 + [2] * 96


def make_sampler(labels: list[int], balanced: bool, seed: int = 0, epoch: int = 0, **ranks: int) -> EpochSampler:
    return EpochSampler(labels, balanced, seed, lambda: epoch, **ranks)


def positions(sampler: EpochSampler) -> list[int]:
    return [position for position, _ in sampler]


@given(counts=st.tuples(*[st.integers(1, 60)] * 3), seed=st.integers(0, 2**31), epoch=st.integers(0, 200))
def test_a_balanced_epoch_draws_classes_equally_and_images_evenly(
    counts: tuple[int, int, int], seed: int, epoch: int
) -> None:
    labels = np.repeat([0, 1, 2], counts)
    sampler = make_sampler(labels.tolist(), True, seed, epoch)
    drawn = np.bincount(positions(sampler), minlength=len(labels))
    assert drawn.sum() == len(sampler) == len(labels)
    shares = [int(drawn[labels == label].sum()) for label in range(3)]
    assert max(shares) - min(shares) <= 1
    assert all(np.ptp(drawn[labels == label]) <= 1 for label in range(3))


def test_busis_balanced_epoch() -> None:
    drawn = Counter(LABELS[position] for position in positions(make_sampler(LABELS, True)))
    assert sorted(drawn.values()) == [187, 187, 188]


def test_an_epoch_as_it_is_draws_every_image_once() -> None:
    order = positions(make_sampler(LABELS, False))
    assert sorted(order) == list(range(len(LABELS))) != order


@pytest.mark.parametrize("balanced", [True, False])
def test_order_and_seeds_are_a_function_of_seed_and_epoch(balanced: bool) -> None:
    def epoch(number: int, seed: int = 0) -> list[tuple[int, int]]:
        return list(make_sampler(LABELS, balanced, seed, number))

    epochs = [epoch(0), epoch(1), epoch(2), epoch(0, seed=1), epoch(1, seed=1)]
    assert len({tuple(draws) for draws in epochs}) == 5
    assert all(not {seed for _, seed in one} & {seed for _, seed in two} for one, two in pairwise(epochs))
    assert epoch(2) == epochs[2]
    now = [0]
    sampler = EpochSampler(LABELS, balanced, 0, lambda: now[0])
    list(sampler), torch.rand(3), np.random.rand(3)  # noqa: NPY002
    now[0] = 2
    assert list(sampler) == list(sampler) == epochs[2]


def test_a_continued_epoch_leaves_out_what_is_behind_it() -> None:
    now = [3]
    whole = list(make_sampler(LABELS, True, epoch=3))
    sampler = EpochSampler(LABELS, True, 0, lambda: now[0])
    sampler.skip(3, 40)
    assert list(sampler) == whole[40:]
    now[0] = 4
    assert list(sampler) == list(make_sampler(LABELS, True, epoch=4))
    for rank in range(2):
        part = make_sampler(LABELS, True, epoch=3, rank=rank, ranks=2)
        part.skip(3, 40)  # of each rank
        assert list(part) == whole[80 + rank :: 2]


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_partition_an_epoch(balanced: bool, ranks: int) -> None:
    whole = list(make_sampler(LABELS, balanced, 7))
    parts = [make_sampler(LABELS, balanced, 7, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert {len(list(part)) for part in parts} == {len(part) for part in parts} == {len(LABELS) // ranks}
    woven = [draw for step in zip(*parts, strict=True) for draw in step]
    assert woven == whole[: len(woven)]


def test_a_set_smaller_than_the_number_of_ranks_gives_each_one_draw() -> None:
    assert [len(list(make_sampler([0, 1], True, rank=rank, ranks=4))) for rank in range(4)] == [1, 1, 1, 1]


# ------------------------------------------------------------------------------------------- datamodule


def ready(root: Path, **arguments: Any) -> BusiDataModule:
    data = BusiDataModule(str(root), **{"image_size": SIZE, "num_workers": 0, **arguments})
    data.prepare_data()
    data.setup()
    return data


def test_batches_have_the_promised_keys_shapes_and_types(phantom_root: Path) -> None:
    data = ready(phantom_root, augment=PAPER, batch_size=5, eval_batch_size=3)
    for loader, size in ((data.train_dataloader(), 5), (data.val_dataloader(), 3), (data.test_dataloader(), 3)):
        batch = next(iter(loader))
        assert set(batch) == {"image", "label", "case_id", "mask"}
        for key in ("image", "mask"):
            assert batch[key].shape == (size, 1, SIZE, SIZE) and batch[key].dtype == torch.uint8
        assert batch["label"].shape == (size,) and batch["label"].dtype == torch.int64
        assert batch["mask"].max() == 1
        names = [CLASSES[label] for label in batch["label"]]
        assert [case.split()[0] for case in batch["case_id"]] == names
        assert [bool(mask.any()) for mask in batch["mask"]] == [name != "normal" for name in names]


def test_masks_can_be_left_out(phantom_root: Path) -> None:
    on, off = (ready(phantom_root, augment=PAPER, masks=masks) for masks in (True, False))
    for one, two in zip(on.train_dataloader(), off.train_dataloader(), strict=True):
        assert set(two) == {"image", "label", "case_id"}
        assert torch.equal(one["image"], two["image"])


def test_evaluation_is_the_manifest_in_order_and_as_stored(phantom_root: Path) -> None:
    data = ready(phantom_root, augment=PAPER)
    manifest = make_manifest(index_dataset(phantom_root), "published")
    assert data.manifest == data.full_manifest == manifest
    assert data.cache is not None
    numbers = {case.case_id: number for number, case in enumerate(data.cache.index.cases)}
    for loader, ids in ((data.val_dataloader(), manifest.val), (data.test_dataloader(), manifest.test)):
        (batch,) = loader
        assert tuple(batch["case_id"]) == ids
        for case, image, mask in zip(ids, batch["image"], batch["mask"], strict=True):
            assert np.array_equal(image[0], data.cache.image(numbers[case]))
            assert np.array_equal(mask[0], data.cache.mask(numbers[case]))


def test_nothing_is_decoded_after_setup(phantom_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready(phantom_root, augment=PAPER)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(index_module, "read_image", lambda *_: pytest.fail("decoded"))
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert len(list(loader)) == len(loader)
    data.setup("test")  # a second stage opens nothing


def test_preparing_stores_and_setup_reads(phantom_root: Path, tmp_path: Path, reads: list[Path]) -> None:
    data = BusiDataModule(str(phantom_root), image_size=SIZE, cache_dir=str(tmp_path))
    data.prepare_data()
    assert len(reads) == 2 * 60  # for the cache, and for the groups of near-copies
    data.setup()
    ready(phantom_root, cache_dir=str(tmp_path))
    assert len(reads) == 2 * 60


def test_augmenting_leaves_the_cache_as_it_is(phantom_root: Path) -> None:
    for augment in ({}, PAPER):
        data = ready(phantom_root, augment=augment)
        assert data.cache is not None
        before = data.cache.images.clone()
        for batch in data.train_dataloader():
            batch["image"].zero_()
        assert torch.equal(data.cache.images, before)


@pytest.mark.parametrize("stored", [True, False])
def test_epochs_are_the_same_for_any_number_of_workers(phantom_root: Path, tmp_path: Path, stored: bool) -> None:
    cache_dir = str(tmp_path) if stored else None

    def epochs(workers: int, seed: int = 0) -> list[dict[str, Any]]:
        data = ready(phantom_root, augment=settings("strong"), num_workers=workers, seed=seed, cache_dir=cache_dir)
        data.trainer = trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=0)  # type: ignore[assignment]
        loader, batches = data.train_dataloader(), []
        for trainer.current_epoch in range(2):
            batches += list(loader)
        return batches

    alone, shared = epochs(0), epochs(2)
    assert len(alone) == len(shared) == 12
    for one, two in zip(alone, shared, strict=True):
        assert one["case_id"] == two["case_id"]
        assert torch.equal(one["image"], two["image"]) and torch.equal(one["mask"], two["mask"])
    assert [batch["case_id"] for batch in alone[:6]] != [batch["case_id"] for batch in alone[6:]]
    assert [batch["case_id"] for batch in epochs(0, seed=1)] != [batch["case_id"] for batch in alone]


def test_every_epoch_of_a_training_has_its_own_order(phantom_root: Path, tmp_path: Path) -> None:
    class Recorder(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen: dict[int, list[str]] = {}

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            self.seen.setdefault(self.current_epoch, []).extend(batch["case_id"])
            return self.weight.sum()

        def validation_step(self, *_: Any) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    recorder, data = Recorder(), ready(phantom_root)
    options: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"), False
    )
    trainer = Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, **options)
    trainer.fit(recorder, datamodule=data)
    for epoch in (0, 1):
        sampler = make_sampler(data.train_set.labels, True, epoch=epoch)
        assert recorder.seen[epoch] == [data.train_set.case_ids[position] for position in positions(sampler)]


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_augmentation_sets_work_at_64_pixels(phantom_root: Path, name: str) -> None:
    data = ready(phantom_root, image_size=64, augment=settings(name))
    for batch in data.train_dataloader():
        assert batch["image"].shape[1:] == (1, 64, 64)
        assert set(batch["mask"].unique().tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(4, [4, 4]), (2, [2] * 4), (8, [8]), (5, [5, 4]), (3, [3] * 3), (1, [1] * 9), (32, [9])],
)
def test_a_single_image_left_over_is_dropped(phantom_root: Path, batch_size: int, sizes: list[int]) -> None:
    data = ready(phantom_root, subset=3, batch_size=batch_size, eval_batch_size=2)
    assert [len(batch["label"]) for batch in data.train_dataloader()] == sizes  # of nine
    assert [len(batch["label"]) for batch in data.val_dataloader()] == [2, 1]


def test_a_subset_keeps_the_full_manifest(phantom_root: Path) -> None:
    data = ready(phantom_root, subset=1)
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [3, 3, 3]
    assert len(data.full_manifest.train) == 22
    assert data.manifest.test == ("benign (1)", "malignant (1)", "normal (1)")


def test_split_settings_and_manifests_reach_the_split(phantom_root: Path, tmp_path: Path) -> None:
    split = {"protocol": "holdout", "seed": 3, "test_fraction": 0.3, "val_fraction": 0.2, "manifest": None}
    data = ready(phantom_root, split=split)
    expected = make_manifest(index_dataset(phantom_root), "holdout", 3, 0.3, 0.2)
    assert data.manifest == expected
    write_manifest(tmp_path / "split.json", expected)
    assert (
        ready(phantom_root, split={**split, "seed": 9, "manifest": str(tmp_path / "split.json")}).manifest == expected
    )
    with pytest.raises(UserError, match="no such file"):
        ready(phantom_root, split={"manifest": str(tmp_path / "gone.json")})


def test_ranks_share_an_evaluation(phantom_root: Path) -> None:
    data = ready(phantom_root)
    seen: list[str] = []
    for rank in range(2):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, current_epoch=0)  # type: ignore[assignment]
        (batch,) = data.test_dataloader()
        seen += batch["case_id"]
        assert len(list(data.train_dataloader().sampler)) == 11
    assert sorted(seen) == list(data.manifest.test)


def test_unbalanced_sampling_draws_each_image_once(phantom_root: Path) -> None:
    data = ready(phantom_root, balanced_sampling=False)
    assert sorted(case for batch in data.train_dataloader() for case in batch["case_id"]) == list(data.manifest.train)


def test_a_wrong_root_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.root=.*nowhere: expected a dataset folder"):
        ready(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"data.root is not set"):
        BusiDataModule(None).setup()


def test_classes_take_part_within_the_split_of_all(phantom_root: Path) -> None:
    everything, lesions = ready(phantom_root), ready(phantom_root, classes=["benign", "malignant"])
    assert lesions.full_manifest == everything.full_manifest
    for split in ("train", "val", "test"):
        kept = [case for case in getattr(everything.manifest, split) if not case.startswith("normal")]
        assert list(getattr(lesions.manifest, split)) == kept
    drawn = [label for batch in lesions.train_dataloader() for label in batch["label"].tolist()]
    assert set(drawn) == {0, 1}


def test_original_masks_are_those_on_disk(phantom_root: Path) -> None:
    data = ready(phantom_root, original_masks=True)
    assert "original_mask" not in next(iter(data.val_dataloader()))
    (batch,) = data.test_dataloader()
    cases = {case.case_id: case for case in data.cache.index.cases}  # type: ignore[union-attr]
    for case_id, mask in zip(batch["case_id"], batch["original_mask"], strict=True):
        case = cases[case_id]
        assert mask.shape == (1, case.height, case.width)
        assert int(mask.sum()) == case.lesion_pixels
