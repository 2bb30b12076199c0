import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from busi_lab.classes import BUSI
from busi_lab.data import phantom
from busi_lab.data.phantom import generate_phantoms, make_phantom
from busi_lab.data.scan import Gray, Mask
from busi_lab.errors import UserError

SIDE = 64
SAMPLE = 40


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.png")}


@pytest.fixture(scope="module")
def lesions() -> dict[str, list[tuple[Gray, Mask]]]:
    return {
        label: [make_phantom(label, np.random.default_rng([7, n]), 160, 200) for n in range(SAMPLE)]
        for label in ("benign", "malignant")
    }


def posterior_contrasts(samples: list[tuple[Gray, Mask]]) -> Iterator[float]:
    """Mean gray below the lesion minus mean gray beside it at the same depth."""
    for image, mask in samples:
        rows, columns = np.nonzero(mask)
        below = slice(rows.max() + 2, rows.max() + 2 + max(4, np.ptp(rows) // 2))
        middle, half = int(columns.mean()), max(2, np.ptp(columns) // 4)
        beside = [
            image[below, max(columns.min() - 5 * half, 0) : max(columns.min() - half, 0)],
            image[below, columns.max() + half : columns.max() + 5 * half],
        ]
        behind = image[below, middle - half : middle + half]
        yield float(behind.mean() - np.concatenate([part.ravel() for part in beside]).mean())


def aspects(samples: list[tuple[Gray, Mask]]) -> NDArray[np.float64]:
    """Height over width of each mask's bounding box."""
    boxes = [(np.any(mask, axis=1).sum(), np.any(mask, axis=0).sum()) for _, mask in samples]
    return np.array([height / width for height, width in boxes])


def roughness(mask: Mask) -> float:
    """Perimeter in pixel edges, squared, over area: 16 for a square, more for a ragged outline."""
    padded = np.pad(mask, 1)
    edges = np.sum(padded[1:] != padded[:-1]) + np.sum(padded[:, 1:] != padded[:, :-1])
    return float(edges**2 / mask.sum())


def test_layout_and_pixel_format_are_busis(tmp_path: Path) -> None:
    root = generate_phantoms(tmp_path / "set", {"benign": 3, "normal": 2}, height=SIDE, width=SIDE)
    assert root == tmp_path / "set"
    assert sorted(contents(root)) == [
        *(f"benign/benign ({n}){mask}.png" for n in (1, 2, 3) for mask in ("", "_mask")),
        *(f"normal/normal ({n}){mask}.png" for n in (1, 2) for mask in ("", "_mask")),
    ]
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == list(BUSI.names)
    for path in root.rglob("*.png"):
        assert Image.open(path).mode == "L"
        if "_mask" in path.name:
            assert read(path).shape == read(path.with_name(path.name.replace("_mask", ""))).shape
            assert set(np.unique(read(path))) == ({0} if path.parent.name == "normal" else {0, 255})


def test_an_image_depends_on_seed_class_and_number_only(tmp_path: Path) -> None:
    few = contents(generate_phantoms(tmp_path / "few", {"normal": 1, "benign": 2}, 5, SIDE, SIDE))
    many = contents(generate_phantoms(tmp_path / "many", {"benign": 4, "malignant": 2, "normal": 3}, 5, SIDE, SIDE))
    other = contents(generate_phantoms(tmp_path / "other", {"normal": 1, "benign": 2}, 6, SIDE, SIDE))
    assert few == {name: many[name] for name in few}
    scans = [name for name in few if "_mask" not in name]
    assert all(few[name] != other[name] for name in scans)
    assert len({many[name] for name in many if "_mask" not in name}) == 9


def test_make_phantom_repeats_itself_and_obeys_the_size() -> None:
    first, second = (make_phantom("malignant", np.random.default_rng(3), 90, 131) for _ in range(2))
    assert first[0].shape == first[1].shape == (90, 131)
    assert first[0].dtype == np.uint8 and first[1].dtype == np.bool_
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_sizes_differ_by_up_to_15_percent(tmp_path: Path) -> None:
    root = generate_phantoms(tmp_path / "set", {"benign": 12}, height=100, width=200)
    shapes = {read(path).shape for path in root.rglob("*.png")}
    assert len(shapes) > 6
    assert all(85 <= height <= 115 and 170 <= width <= 230 for height, width in shapes)


@pytest.mark.parametrize("label", ["benign", "malignant"])
def test_the_20th_image_has_a_second_lesion_apart_from_the_first(tmp_path: Path, label: str) -> None:
    root = generate_phantoms(tmp_path / "set", {label: 21}, height=SIDE, width=SIDE)
    second = [path.name for path in root.rglob("*_mask_1.png")]
    assert second == [f"{label} (20)_mask_1.png"]
    masks = [read(root / label / f"{label} (20)_mask{end}.png") > 0 for end in ("", "_1")]
    assert masks[0].any() and masks[1].any() and not (masks[0] & masks[1]).any()


def test_normal_has_no_lesion_however_many_are_asked_for() -> None:
    image, mask = make_phantom("normal", np.random.default_rng(0), 80, 80, lesions=2)
    assert not mask.any()
    assert image.std() > 10


def test_lesions_are_darker_than_what_surrounds_them(lesions: dict[str, list[tuple[Gray, Mask]]]) -> None:
    for samples in lesions.values():
        contrast = []
        for image, mask in samples:
            rows, columns = np.nonzero(mask)
            box = np.s_[rows.min() : rows.max() + 1, max(columns.min() - 10, 0) : columns.max() + 11]
            contrast.append(image[box][~mask[box]].mean() - image[mask].mean())
        assert np.mean(contrast) > 15
        assert np.mean(np.array(contrast) > 0) > 0.9


def test_every_lesion_has_a_plausible_area(lesions: dict[str, list[tuple[Gray, Mask]]]) -> None:
    areas = np.array([mask.mean() for samples in lesions.values() for _, mask in samples])
    assert 0.005 < areas.min() < 0.03 < areas.max() < 0.2


def test_classes_differ_in_shape_and_overlap(lesions: dict[str, list[tuple[Gray, Mask]]]) -> None:
    benign, malignant = aspects(lesions["benign"]), aspects(lesions["malignant"])
    assert np.mean(benign) < 0.85 < 1.0 < np.mean(malignant)
    assert benign.max() > malignant.min()
    ragged = [np.median([roughness(mask) for _, mask in lesions[label]]) for label in ("benign", "malignant")]
    assert ragged[1] > 1.1 * ragged[0]


def test_benign_enhances_and_malignant_shadows(lesions: dict[str, list[tuple[Gray, Mask]]]) -> None:
    benign, malignant = (np.array(list(posterior_contrasts(lesions[label]))) for label in lesions)
    assert np.mean(benign) > 5
    assert np.mean(malignant) < -10
    assert benign.min() < 0  # no class is told by this sign alone


def test_speckle_is_wider_than_high_and_widens_with_depth() -> None:
    height, width = 200, 400
    echo, none = np.full((height, width), -30, np.float32), np.full((height, width), -90, np.float32)
    image = phantom._scan(np.random.default_rng(1), echo, none).astype(float)
    assert image.std() > 5

    def correlation(part: NDArray[np.float64], down: int, across: int) -> float:
        a, b = part[down:, across:], part[: part.shape[0] - down, : part.shape[1] - across]
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    near, far = image[:60], image[-60:]
    assert correlation(far, 0, 3) > correlation(near, 0, 3) + 0.1
    assert correlation(far, 0, 3) > correlation(far, 3, 0) + 0.1


def test_an_interrupted_call_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render, calls = phantom._render, []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            assert len(list(tmp_path.iterdir())) == 1  # what is written so far has another name
            assert not (tmp_path / "set").exists()
            raise KeyboardInterrupt
        return render(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(phantom, "_render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_phantoms(tmp_path / "set", {"benign": 5}, height=SIDE, width=SIDE)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        generate_phantoms(tmp_path, {"benign": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert len(contents(generate_phantoms(root, {"normal": 1}, height=SIDE, width=SIDE))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": {"cyst": 1}}, "unknown class 'cyst'; expected benign, malignant, normal"),
        ({"counts": {"benign": -1}}, "benign is -1; expected 0 or more"),
        ({"counts": {"benign": 1}, "seed": -2}, "seed is -2"),
        ({"counts": {"benign": 1}, "height": 10}, "size is 10 x 320"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        generate_phantoms(tmp_path / "set", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
