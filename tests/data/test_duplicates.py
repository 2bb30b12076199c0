import csv
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from busi_lab import datasets
from busi_lab.classes import BUSI
from busi_lab.data import describe, duplicates
from busi_lab.data.alignment import DescribedScan, hellinger, match
from busi_lab.data.alignment import describe as describe_scan
from busi_lab.data.duplicates import SIMILARITY, cached_groups, find_groups
from busi_lab.data.groups import AGREEMENT, GROUPS, Group, Pair, group_numbers, read_groups, write_groups
from busi_lab.data.index import Index, index_dataset, read_case
from busi_lab.data.phantom import make_phantom
from busi_lab.errors import UserError

Gray = NDArray[np.uint8]
Change = Callable[[Gray], Gray]


def resized(image: Gray) -> Gray:
    return cv2.resize(image, None, fx=0.6, fy=0.7, interpolation=cv2.INTER_AREA)


def recompressed(image: Gray) -> Gray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)


def cropped(image: Gray) -> Gray:
    height, width = image.shape
    return image[height // 12 : -height // 9, width // 10 : -width // 14]


def mirrored(image: Gray) -> Gray:
    return np.ascontiguousarray(image[:, ::-1])


def widened(image: Gray) -> Gray:
    """A 4:3 frame as 16:9 and more."""
    return cv2.resize(image, None, fx=1.5, fy=1, interpolation=cv2.INTER_LINEAR)


def squeezed(image: Gray) -> Gray:
    return cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)


def negative(image: Gray) -> Gray:
    return 255 - image


def with_calipers(image: Gray) -> Gray:
    marked = image.copy()
    height, width = image.shape
    for start, end in (((0.3, 0.5), (0.7, 0.45)), ((0.5, 0.3), (0.52, 0.7))):
        ends = [(int(x * width), int(y * height)) for x, y in (start, end)]
        for x in np.linspace(0, 1, 25):
            cv2.circle(marked, [int(a + x * (b - a)) for a, b in zip(*ends, strict=True)], 1, 255, -1)
        for place in ends:
            cv2.drawMarker(marked, place, 255, cv2.MARKER_CROSS, 13, 2)
    cv2.putText(marked, "RT 9", (10, height - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 2)
    return marked


CHANGES: dict[str, Change] = {
    change.__name__: change for change in (resized, recompressed, cropped, mirrored, with_calipers)
}
CHANGES |= {change.__name__: change for change in (widened, squeezed, negative)}
CHANGES["negative_mirrored"] = lambda image: negative(mirrored(image))
CHANGES["all"] = lambda image: recompressed(resized(mirrored(cropped(with_calipers(image)))))
MASK_CHANGES: dict[str, Change] = {
    "recompressed": lambda mask: mask,
    "with_calipers": lambda mask: mask,
    "negative": lambda mask: mask,
    "negative_mirrored": mirrored,
    "all": lambda mask: resized(mirrored(cropped(mask))),
}


def put(root: Path, label: str, number: int, image: Gray, mask: Gray) -> str:
    folder = root / label
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{label} ({number})"
    cv2.imwrite(str(folder / f"{name}.png"), image)
    cv2.imwrite(str(folder / f"{name}_mask.png"), mask)
    return name


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Thirty phantoms and, of ten of them, a changed copy: the root, and change -> case id of the copy."""
    root = tmp_path_factory.mktemp("copies") / "set"
    for label in BUSI.names:
        for number in range(1, 11):
            image, mask = make_phantom(label, np.random.default_rng([3, BUSI.names.index(label), number]), 240, 300)
            put(root, label, number, image, mask.astype(np.uint8) * 255)
    names = {}
    for number, (name, change) in enumerate(CHANGES.items(), start=1):
        image, mask = (cv2.imread(str(root / "benign" / f"benign ({number}){end}.png"), 0) for end in ("", "_mask"))
        changed = MASK_CHANGES.get(name, change)(mask)
        names[name] = put(root, "benign", 100 + number, change(image), (changed >= 128).astype(np.uint8) * 255)
    return root, names


@pytest.fixture(scope="module")
def index(copies: tuple[Path, dict[str, str]]) -> Index:
    return index_dataset(copies[0])


@pytest.fixture(scope="module")
def groups(index: Index) -> list[Group]:
    return find_groups(index)


# ------------------------------------------------------------------------------------------ what is found


def test_each_changed_copy_is_found_and_nothing_else(groups: list[Group], copies: tuple[Path, dict[str, str]]) -> None:
    found = {tuple(case.case_id for case in group.cases) for group in groups}
    assert found == {tuple(sorted((f"benign ({n})", name))) for n, name in enumerate(copies[1].values(), start=1)}
    assert [group.number for group in groups] == list(range(1, 1 + len(CHANGES)))


def test_pairs_tell_the_mirror_and_a_similarity_far_from_the_threshold(
    groups: list[Group], copies: tuple[Path, dict[str, str]]
) -> None:
    pairs = {case_id: pair for group in groups for pair in group.pairs for case_id in (pair.first, pair.second)}
    assert {name for name, case_id in copies[1].items() if pairs[case_id].mirrored} == {
        "mirrored",
        "negative_mirrored",
        "all",
    }
    assert {name for name, case_id in copies[1].items() if pairs[case_id].negative} == {"negative", "negative_mirrored"}
    assert all(1 + 1e-6 >= pair.similarity > SIMILARITY + 0.2 for pair in pairs.values())
    assert pairs[copies[1]["mirrored"]].similarity > 0.97


def test_masks_of_copies_agree_where_they_overlap(groups: list[Group]) -> None:
    assert all(pair.dice > 0.9 for group in groups for pair in group.pairs)
    assert {group.conflict for group in groups} == {""}


def test_other_labels_and_other_masks_are_conflicts(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        image, mask = make_phantom("benign", np.random.default_rng(number), 240, 300)
        lesion = mask.astype(np.uint8) * 255
        put(tmp_path, "benign", number, image, lesion)
        other = np.roll(lesion, 120, axis=1) if number > 1 else lesion
        put(tmp_path, "malignant" if number < 3 else "benign", 10 + number, image, other)
    image, mask = make_phantom("normal", np.random.default_rng(4), 240, 300)
    for number in (1, 2):
        put(tmp_path, "normal", number, image, mask.astype(np.uint8))
    found = {group.cases[0].case_id: group for group in find_groups(index_dataset(tmp_path))}
    conflicts = {name: group.conflict for name, group in found.items()}
    assert conflicts == {"benign (1)": "label", "benign (2)": "label+mask", "benign (13)": "mask", "normal (1)": ""}
    assert found["benign (2)"].pairs[0].dice < AGREEMENT < found["benign (1)"].pairs[0].dice


def test_scans_without_texture_are_in_no_group(tmp_path: Path) -> None:
    for label in BUSI.names:
        for number in (1, 2):
            put(tmp_path, label, number, np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8))
    assert find_groups(index_dataset(tmp_path)) == []


def test_a_mirrored_description_is_that_of_the_mirrored_scan() -> None:
    image, mask = make_phantom("benign", np.random.default_rng(1), 240, 320)
    turned = describe_scan(image, mask).mirrored()
    fresh = describe_scan(mirrored(image), np.ascontiguousarray(mask[:, ::-1]))
    assert np.array_equal(turned.pixels, fresh.pixels) and np.array_equal(turned.mask, fresh.mask)
    cosines = hellinger(turned.descriptors) @ hellinger(fresh.descriptors).T
    same = cosines.max(axis=1) > 0.98
    assert same.mean() > 0.8
    distances = np.linalg.norm(turned.points - fresh.points[cosines.argmax(axis=1)], axis=1)
    assert np.median(distances[same]) < 1


def test_a_negative_description_is_that_of_the_negative() -> None:
    image, mask = make_phantom("benign", np.random.default_rng(1), 240, 320)
    turned, anew = describe_scan(image, mask).negative(), describe_scan(255 - image, mask)
    assert (turned.pixels == anew.pixels).all()
    nearest = np.linalg.norm(turned.points[:, None] - anew.points[None], axis=2)
    same = nearest.min(axis=1) < 0.5
    assert same.mean() > 0.9
    one, other = turned.descriptors[same].astype(float), anew.descriptors[nearest.argmin(axis=1)[same]].astype(float)
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert np.median(cosines) > 0.95


def test_matches_are_those_of_a_plain_search(index: Index) -> None:
    scans = [describe_scan(*read_case(index.root, case)) for case in index.cases[:2]]
    scans.append(scans[0].negative())  # every feature has its like, and some are there twice
    found = 0
    for one, other in combinations(scans, 2):
        first, second = hellinger(one.descriptors), hellinger(other.descriptors)
        plain = []
        for row, feature in enumerate(first):
            order = np.argsort(-(second @ feature), kind="stable")
            near, next_near = 1 - second[order[:2]] @ feature
            back = int(np.argmax(first @ second[order[0]]))
            plain += [(row, int(order[0]))] if near < 0.64 * next_near and back == row else []
        assert list(zip(*(numbers.tolist() for numbers in match(first, other)), strict=True)) == plain
        found += len(plain)
    assert found > 20
    empty = DescribedScan(scans[0].pixels, scans[0].mask, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    assert [len(numbers) for numbers in match(hellinger(scans[0].descriptors), empty)] == [0, 0]


def test_candidates_are_the_nearest_of_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "CANDIDATES", 3)
    monkeypatch.setattr(duplicates, "_BLOCK", 4)  # the last block is short
    vectors, views = np.random.default_rng(0).standard_normal((2, 14, 5)).astype(np.float32)
    expected: dict[int, set[int]] = {}
    for row, query in enumerate(views):
        nearest = sorted((other for other in range(14) if other != row), key=lambda other: -vectors[other] @ query)
        for other in nearest[:3]:
            expected.setdefault(min(row, other), set()).add(max(row, other))
    pool = ThreadPoolExecutor(2)
    found = duplicates._candidates(vectors, views, pool)
    assert {first: set(others) for first, others in found.items()} == expected
    assert duplicates._candidates(vectors[:1], views[:1], pool) == {}


# ---------------------------------------------------------------------------------------------- the cache


def test_groups_are_found_once(
    index: Index, groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(duplicates, "find_groups", lambda given: calls.append(given) or groups)
    expected = group_numbers(groups)
    assert cached_groups(index, None) == expected and list(tmp_path.iterdir()) == []
    assert cached_groups(index, tmp_path / "new") == cached_groups(index, tmp_path / "new") == expected
    assert len(calls) == 2
    (stored,) = (tmp_path / "new").glob("groups-*")
    assert index.digest in stored.name and json.loads(stored.read_text())["groups"] == expected
    whole = json.loads(stored.read_text())
    short = json.dumps({**whole, "groups": dict(list(expected.items())[1:])})  # a leak would be hidden
    for damaged in ("", "[1]", '{"benign (1)": "x"}', short):
        stored.write_text(damaged)
        assert cached_groups(index, tmp_path / "new") == expected
    assert len(calls) == 6


def test_a_cache_that_cannot_be_written_is_named(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "find_groups", lambda given: [])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written to .*BUSI_LAB_CACHE"):
        cached_groups(index, tmp_path / "file" / "cache")


def test_of_several_processes_one_fills_the_cache_and_the_others_wait(
    index: Index, groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(duplicates, "find_groups", lambda given: calls.append(given) or groups)
    pids = iter(range(100, 200))
    monkeypatch.setattr(os, "getpid", lambda: next(pids))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: cached_groups(index, tmp_path), range(32)))
    assert all(result == group_numbers(groups) for result in results)
    assert len(calls) == 1 and len(list(tmp_path.glob("groups-*"))) == 1


# ---------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_table_and_a_picture(
    copies: tuple[Path, dict[str, str]],
    index: Index,
    groups: list[Group],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a" / "out"
    cv2.setRNGSeed(99)  # every call finds the same, whatever was drawn before
    datasets.main(["duplicates", str(copies[0]), "--out", str(out)])
    assert sorted(path.name for path in out.iterdir()) == [GROUPS, "groups_01.png"]
    write_groups(tmp_path / GROUPS, groups, index)
    assert (out / GROUPS).read_bytes() == (tmp_path / GROUPS).read_bytes()
    assert read_groups(out / GROUPS, index) == group_numbers(groups)
    picture = cv2.imread(str(out / "groups_01.png"))
    assert 300 < picture.shape[0] < 2500 and 1000 < picture.shape[1] < 2500 and picture.std() > 20
    text = capsys.readouterr().out
    assert "10 groups with 20 of 40 images" in text and "groups of several labels: 0" in text
    with pytest.raises(SystemExit) as caught:
        datasets.main(["duplicates", str(copies[0]), "--out", str(out)])
    assert caught.value.code == 2 and "is not empty" in capsys.readouterr().err


def test_a_failure_leaves_nothing(phantom_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((phantom_copy / "normal").iterdir()).write_bytes(b"")
    with pytest.raises(SystemExit):
        datasets.main(["duplicates", str(phantom_copy), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [phantom_copy.name]


def test_many_groups_take_several_pages(index: Index, groups: list[Group], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "_GROUPS_A_PAGE", 6)
    assert len(list(describe.draw_groups(groups, index))) == 2
    names = [case.case_id for case in index.cases[:11]]
    pairs = tuple(Pair(a, b, 0.9, 1.0, False) for a, b in pairwise(names))
    pages = list(describe.draw_groups([Group(1, index.cases[:11], pairs)], index))
    assert len(pages) == 1


# --------------------------------------------------------------------------------------------- real data


@pytest.mark.busi
@pytest.mark.slow
def test_busis_groups_are_those_of_the_reference(busi_root: Path) -> None:
    path = Path(os.environ["BUSI_ROOT"]).parent / "busi_lists" / "duplicate_groups.csv"
    if not path.is_file():
        pytest.skip(f"needs the reference list {path}")
    reference: dict[str, list[str]] = {}
    for row in csv.DictReader(path.open()):
        reference.setdefault(row["group"], []).append(row["image"])
    found = [[case.case_id for case in group.cases] for group in find_groups(index_dataset(busi_root))]
    expected, actual = (
        {frozenset(pair) for members in sets for pair in combinations(members, 2)}
        for sets in (reference.values(), found)
    )
    common = len(expected & actual)
    assert common / len(expected) >= 0.98
    assert common / len(actual) >= 0.98
