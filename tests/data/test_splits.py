import json
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from busi_lab.classes import BUSI
from busi_lab.data.cache import PixelCache
from busi_lab.data.groups import join_patients
from busi_lab.data.index import Case, Index
from busi_lab.data.manifest import SPLITS, Manifest, read_manifest, verify_manifest, write_manifest
from busi_lab.data.splits import make_manifest
from busi_lab.errors import UserError

SEEDS = st.integers(0, 2**31 - 1)
SIZES = st.tuples(*[st.integers(5, 70)] * 3)


def make_index(*counts: int) -> Index:
    """An index without files, in file order."""
    cases = []
    for label, count in zip(BUSI.names, counts, strict=True):
        names = sorted(f"{label} ({number}).png" for number in range(1, count + 1))
        cases += [
            Case(name[:-4], label, f"{label}/{name}", (f"{label}/{name[:-4]}_mask.png",), 8, 8, 4, name)
            for name in names
        ]
    return Index(Path("set"), tuple(cases))


def counts(manifest: Manifest, index: Index, split: str) -> tuple[int, ...]:
    labels = {case.case_id: case.label for case in index.cases}
    found = Counter(labels[case] for case in getattr(manifest, split))
    return tuple(found[label] for label in BUSI.names)


def check_partition(manifest: Manifest, index: Index) -> None:
    lists = [getattr(manifest, split) for split in SPLITS]
    assert all(list(ids) == sorted(ids) for ids in lists)
    assert sorted(case for ids in lists for case in ids) == sorted(case.case_id for case in index.cases)
    assert manifest.data_digest == index.digest


# --------------------------------------------------------------------------------------------- protocols


def test_published_takes_the_first_fifth_in_file_order() -> None:
    manifest = make_manifest(make_index(12, 10, 5), "published")
    assert manifest.test == (
        *("benign (1)", "benign (10)"),  # of 12: "(10)" comes before "(2)"
        *("malignant (1)", "malignant (10)"),
        "normal (1)",
    )
    # What remains is 10, 8 and 4; a tenth of it, but at least one, validates.
    assert (len(manifest.val), len(manifest.train)) == (3, 19)
    assert (manifest.protocol, manifest.seed, manifest.fold) == ("published", 0, None)


def test_published_on_busis_counts_is_the_papers_test_set() -> None:
    index = make_index(437, 210, 133)
    manifest = make_manifest(index, "published")
    assert counts(manifest, index, "test") == (87, 42, 26)
    assert counts(manifest, index, "val") == (35, 17, 11)  # tenths of 350, 168, 107
    assert counts(manifest, index, "train") == (315, 151, 96)
    assert manifest.test[:3] == ("benign (1)", "benign (10)", "benign (100)")


@pytest.mark.busi
def test_published_on_busi(busi_cache: PixelCache) -> None:
    index = busi_cache.index
    manifest = make_manifest(index, "published")
    assert counts(manifest, index, "test") == (87, 42, 26)
    assert {"benign (10)", "benign (177)", "malignant (1)", "normal (1)"} <= set(manifest.test)
    assert "benign (2)" not in manifest.test
    check_partition(manifest, index)


@given(sizes=SIZES, seed=SEEDS)
def test_published_partitions_and_stratifies(sizes: tuple[int, int, int], seed: int) -> None:
    index = make_index(*sizes)
    manifest = make_manifest(index, "published", seed)
    check_partition(manifest, index)
    rest = [size - size // 5 for size in sizes]
    assert counts(manifest, index, "test") == tuple(size // 5 for size in sizes)
    assert counts(manifest, index, "val") == tuple(max(1, round(count / 10)) for count in rest)
    assert make_manifest(index, "published", seed) == manifest


@given(sizes=SIZES, seed=SEEDS, other=SEEDS)
def test_the_seed_of_published_moves_validation_only(sizes: tuple[int, int, int], seed: int, other: int) -> None:
    index = make_index(*sizes)
    one, two = (make_manifest(index, "published", value) for value in (seed, other))
    assert one.test == two.test
    assert one.test_digest == two.test_digest
    assert set(one.train + one.val) == set(two.train + two.val)


def test_another_seed_validates_on_other_cases() -> None:
    index = make_index(60, 50, 40)
    found = {(manifest := make_manifest(index, "published", seed)).val: manifest.digest for seed in range(5)}
    assert len(found) == len(set(found.values())) == 5


@given(sizes=SIZES, seed=SEEDS, test=st.floats(0.02, 0.6), val=st.floats(0, 0.6))
def test_holdout_partitions_and_stratifies(sizes: tuple[int, int, int], seed: int, test: float, val: float) -> None:
    index = make_index(*sizes)
    assume(all(int(test * size + 1e-9) for size in sizes))
    assume(all(round(val * (size - int(test * size))) < size - int(test * size) - 1 for size in sizes))
    manifest = make_manifest(index, "holdout", seed, test, val)
    check_partition(manifest, index)
    for size, tested, validated in zip(
        sizes, counts(manifest, index, "test"), counts(manifest, index, "val"), strict=True
    ):
        assert -1e-6 < test * size - tested < 1
        assert validated == 1 or abs(val * (size - tested) - validated) <= 0.5 + 1e-6
    assert make_manifest(index, "holdout", seed, test, val) == manifest


@given(seed=SEEDS, other=SEEDS)
def test_another_seed_is_another_holdout(seed: int, other: int) -> None:
    assume(seed != other)
    index = make_index(60, 50, 40)
    one, two = (make_manifest(index, "holdout", value) for value in (seed, other))
    assert one.test != two.test
    assert len({one.digest, two.digest}) == len({one.test_digest, two.test_digest}) == 2


@pytest.mark.parametrize(("fraction", "tested"), [(0.1, 10), (0.29, 29), (0.3, 30), (0.57, 57), (0.7, 70)])
def test_fractions_are_not_cut_short_by_rounding(fraction: float, tested: int) -> None:
    index = make_index(100, 100, 100)
    manifest = make_manifest(index, "holdout", test_fraction=fraction)
    assert counts(manifest, index, "test") == (tested,) * 3  # 0.29 * 100 is 28.999999999999996


@given(size=st.integers(1, 4), position=st.integers(0, 2), protocol=st.sampled_from(["published", "holdout"]))
def test_a_class_too_small_to_split_is_named(size: int, position: int, protocol: str) -> None:
    sizes = [20, 20, 20]
    sizes[position] = size
    expected = f"no {BUSI.names[position]} image for test: the class has {size} images? to use"
    with pytest.raises(UserError, match=expected):
        make_manifest(make_index(*sizes), protocol)


def test_fractions_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(UserError, match="leaves no benign image for train"):
        make_manifest(make_index(20, 20, 20), val_fraction=1.0)


def test_published_has_one_test_fraction() -> None:
    assert make_manifest(INDEX, "published", test_fraction=0.2) == make_manifest(INDEX, "published")
    with pytest.raises(UserError, match=r"split.test_fraction=0.5: split=published is fixed at 0.2; use split=holdout"):
        make_manifest(INDEX, "published", test_fraction=0.5)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(UserError, match=r"split.protocol=kfold: expected published, holdout, grouped_holdout"):
        make_manifest(make_index(20, 20, 20), "kfold")


# ------------------------------------------------------------------------------------------ near-copies


@st.composite
def grouped(draw: st.DrawFn, mixed: bool = True) -> tuple[Index, dict[str, int]]:
    """A dataset and its groups; with ``mixed``, some hold several classes."""
    sizes = [draw(st.integers(24, 50)) for _ in BUSI.names]
    index = make_index(*sizes)
    groups: dict[str, int] = {}
    number = 0
    for label in BUSI.names:
        ids = [case.case_id for case in index.cases if case.label == label]
        while ids and draw(st.booleans()):
            number += 1
            size = draw(st.integers(2, 4))
            groups.update(dict.fromkeys(ids[:size], number))
            ids = ids[size + draw(st.integers(0, 3)) :]
    if mixed and number > 1:
        for case_id, group in list(groups.items()):
            if group == number:
                groups[case_id] = draw(st.integers(1, number))
    return index, groups


GROUPED = ("grouped_holdout", "grouped_kfold", "curated")


@given(data=grouped(), seed=SEEDS, protocol=st.sampled_from(GROUPED), fold=st.integers(0, 4))
@settings(max_examples=60)
def test_no_group_crosses_a_grouped_split(
    data: tuple[Index, dict[str, int]], seed: int, protocol: str, fold: int
) -> None:
    index, groups = data
    manifest = make_manifest(
        index, protocol, seed, val_fraction=0.2, groups=groups, fold=fold if protocol == "grouped_kfold" else 0
    )
    assert manifest.leaked(groups) == ()
    where: dict[int, set[str]] = {}
    for split in SPLITS:
        for case_id in getattr(manifest, split):
            if case_id in groups:
                where.setdefault(groups[case_id], set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())
    everything = [case_id for split in (*SPLITS, "excluded") for case_id in getattr(manifest, split)]
    assert sorted(everything) == sorted(case.case_id for case in index.cases)
    if protocol != "curated":
        assert manifest.excluded == ()


@given(data=grouped(), seed=SEEDS, folds=st.integers(2, 6))
@settings(max_examples=40)
def test_folds_partition_the_images_with_equal_class_shares(
    data: tuple[Index, dict[str, int]], seed: int, folds: int
) -> None:
    index, groups = data
    parts = [make_manifest(index, "grouped_kfold", seed, fold=k, folds=folds, groups=groups) for k in range(folds)]
    tested = [case_id for part in parts for case_id in part.test]
    assert sorted(tested) == sorted(case.case_id for case in index.cases)
    assert [part.fold for part in parts] == list(range(folds))
    labels = {case.case_id: case.label for case in index.cases}
    for position, label in enumerate(BUSI.names):
        units = Counter(groups[i] for i in groups if labels[i] == label)
        several = sum(
            count for group, count in units.items() if len({labels[i] for i in groups if groups[i] == group}) > 1
        )
        held = [counts(part, index, "test")[position] for part in parts]
        assert max(held) - min(held) <= max([1, *units.values()]) + several


@given(data=grouped(mixed=False), seed=SEEDS)
@settings(max_examples=40)
def test_a_grouped_holdout_is_as_large_as_a_holdout_but_for_a_part_of_a_group(
    data: tuple[Index, dict[str, int]], seed: int
) -> None:
    index, groups = data
    manifest = make_manifest(index, "grouped_holdout", seed, groups=groups)
    for held, found in zip(
        counts(manifest, index, "test"), Counter(c.label for c in index.cases).values(), strict=True
    ):
        assert abs(held - int(0.2 * found)) <= 2  # groups have four images at most


@given(data=grouped(), seed=SEEDS, protocol=st.sampled_from(GROUPED), fold=st.integers(0, 4), owners=st.randoms())
@settings(max_examples=60)
def test_no_patient_crosses_a_grouped_split(
    data: tuple[Index, dict[str, int]], seed: int, protocol: str, fold: int, owners: Random
) -> None:
    index, groups = data
    patients = ["", *(f"p{number}" for number in range(60))]
    cases = tuple(replace(case, patient=owners.choice(patients)) for case in index.cases)
    index = Index(index.root, cases)
    kfold = {"fold": fold} if protocol == "grouped_kfold" else {}
    try:
        manifest = make_manifest(index, protocol, seed, 0.4, 0.4, groups=groups, **kfold)
    except UserError as error:  # patients of many classes may leave one out
        assert "groups at least" in str(error) or "leaves no" in str(error)
        reject()
    joined = join_patients(cases, groups)
    assert manifest.leaked(joined) == ()
    splits = {case_id: split for split in SPLITS for case_id in getattr(manifest, split)}
    where: dict[str, set[str]] = {}
    for case in cases:
        if case.patient and case.case_id in splits:
            where.setdefault(case.patient, set()).add(splits[case.case_id])
    assert all(len(found) == 1 for found in where.values())


def test_curated_keeps_one_image_of_each_patient() -> None:
    index = make_index(20, 20, 20)
    cases = tuple(replace(case, patient=f"p{case.case_id[-3:-1]}") for case in index.cases)  # three images each
    large = tuple(replace(case, width=9) if case.case_id == "normal (4)" else case for case in cases)
    manifest = make_manifest(Index(index.root, large), "curated", groups={"benign (1)": 1, "benign (2)": 1})
    kept = [case_id for split in SPLITS for case_id in getattr(manifest, split)]
    assert len(kept) == len({case_id[-3:-1] for case_id in kept} | {"2)"}) - 1 == 19  # p1) and p2) have a near-copy
    assert "normal (4)" in kept


@st.composite
def owned(draw: st.DrawFn) -> Index:
    """A dataset of few patients with many images each, of one class or of several."""
    cases: list[Case] = []
    for patient in range(draw(st.integers(12, 30))):
        for label in draw(st.sets(st.sampled_from(BUSI.names), min_size=1)):
            for number in range(draw(st.integers(1, 30))):
                case_id = f"{label} {patient} {number}"
                cases.append(Case(case_id, label, case_id, (), 8, 8, 4, case_id, patient=f"p{patient}"))
    return Index(Path("set"), tuple(cases))


@given(index=owned(), seed=SEEDS, protocol=st.sampled_from(("grouped_holdout", "grouped_kfold")))
@settings(max_examples=100)
def test_patients_stay_together_and_classes_are_shared_out_or_it_is_said(
    index: Index, seed: int, protocol: str
) -> None:
    try:
        manifest = make_manifest(index, protocol, seed, test_fraction=0.2, val_fraction=0.1)
    except UserError as error:
        assert "groups at least" in str(error) or (protocol == "grouped_kfold" and "leaves no" in str(error))
        reject()
    check_partition(manifest, index)
    owners = {case.case_id: (case.patient, case.label) for case in index.cases}
    patients = [{owners[case_id][0] for case_id in getattr(manifest, split)} for split in SPLITS]
    assert not any(one & other for one, other in combinations(patients, 2))
    for split, wanted in (("test", 0.2), ("val", 0.08)):
        for position, label in enumerate(BUSI.names):
            if not (total := sum(case.label == label for case in index.cases)):
                continue
            share = counts(manifest, index, split)[position] / total
            assert share > 0
            told = [text for text in manifest.imbalance if text.startswith(f"{split} has {share:.0%} of the {label} ")]
            assert bool(told) == (abs(share - wanted) > 0.1)


def test_seven_patients_with_thirty_images_are_split() -> None:
    """Whole patients do not fit a fifth of the images; a split that takes the nearest is of use all the same."""
    cases = []
    for patient in range(7):
        for number in range(30):
            label = BUSI.names[number % 3]
            case_id = f"{label} {patient} {number}"
            cases.append(Case(case_id, label, case_id, (), 8, 8, 4, case_id, patient=f"p{patient}"))
    manifest = make_manifest(Index(Path("set"), tuple(cases)), "grouped_holdout")
    assert [len(getattr(manifest, split)) for split in SPLITS] == [150, 30, 30]
    assert manifest.imbalance == ()  # a seventh, where 20 % and 8 % were wanted
    folds = [make_manifest(Index(Path("set"), tuple(cases)), "grouped_kfold", fold=fold) for fold in range(5)]
    assert sorted(len(part.test) for part in folds) == [30, 30, 30, 60, 60]


def test_a_fold_with_most_of_a_class_is_said() -> None:
    index = make_index(50, 50, 50)
    cases = tuple(
        replace(case, patient="p0") if case.label == "normal" and index_of % 50 < 30 else case
        for index_of, case in enumerate(index.cases)
    )
    parts = [make_manifest(Index(index.root, cases), "grouped_kfold", fold=fold) for fold in range(5)]
    shares = sorted(counts(part, index, "test")[2] for part in parts)
    assert shares == [5, 5, 5, 5, 30]
    (sentence,) = next(part.imbalance for part in parts if counts(part, index, "test")[2] == 30)
    assert sentence == (
        "test has 60% of the normal images where 20% was wanted: their 21 groups (near-copies, or one patient) "
        "cannot be shared out evenly"
    )


def test_grouped_splits_know_their_version(tmp_path: Path) -> None:
    manifest = make_manifest(INDEX, "grouped_holdout")
    assert (manifest.version, make_manifest(INDEX, "holdout").version) == (2, 1)
    assert replace(manifest, version=1).digest != manifest.digest
    assert replace(manifest, version=1).test_digest == manifest.test_digest
    write_manifest(tmp_path / "split.json", manifest)
    assert read_manifest(tmp_path / "split.json", INDEX) == manifest


# ---------------------------------------------------------------------------------------- what is not known


def unlabelled_index() -> Index:
    """Twenty images of each class; the first ten benign ones have no label."""
    index = make_index(20, 20, 20)
    return Index(index.root, tuple(replace(c, label="" if k < 10 else c.label) for k, c in enumerate(index.cases)))


@pytest.mark.parametrize("protocol", ["published", "holdout", "grouped_holdout", "grouped_kfold", "curated"])
def test_images_without_a_label_are_a_stratum_that_no_split_needs(protocol: str) -> None:
    index = unlabelled_index()
    manifest = make_manifest(index, protocol)
    check_partition(manifest, index)
    labels = {case.case_id: case.label for case in index.cases}
    assert sum(not labels[case_id] for case_id in manifest.test) == 2
    assert manifest.subset(labels) == manifest
    assert all(labels[i] for split in SPLITS for i in getattr(manifest.subset(labels, classes=BUSI.names), split))
    single = Index(index.root, tuple(c for c in index.cases if c.label or c.case_id == "benign (1)"))
    make_manifest(single, protocol)


def test_unusable_images_are_excluded_and_their_class_is_not_missed(tmp_path: Path) -> None:
    index = make_index(20, 20, 20)
    normal = {case.case_id for case in index.cases if case.label == "normal"}
    manifest = make_manifest(index, "holdout", unusable=normal)
    assert set(manifest.excluded) == normal
    with pytest.raises(UserError, match="leaves no normal image for test"):
        make_manifest(index, "holdout", exclude=normal)
    write_manifest(tmp_path / "split.json", manifest)
    assert read_manifest(tmp_path / "split.json", index) == manifest
    assert read_manifest(tmp_path / "split.json", index, unusable=normal) == manifest


def test_a_manifest_is_read_without_what_cannot_be_used(tmp_path: Path) -> None:
    manifest = make_manifest(INDEX, "published")
    write_manifest(tmp_path / "split.json", manifest)
    read = read_manifest(tmp_path / "split.json", INDEX, unusable={manifest.train[0], manifest.test[0]})
    assert (read.train, read.val, read.test) == (manifest.train[1:], manifest.val, manifest.test[1:])
    assert set(read.excluded) == {manifest.train[0], manifest.test[0]}
    benign = {case_id for case_id in manifest.val if case_id.startswith("benign")}
    with pytest.raises(UserError, match="without the scans that this task cannot use: val has no benign image"):
        read_manifest(tmp_path / "split.json", INDEX, unusable=benign)


@given(sizes=st.tuples(*[st.integers(0, 5)] * 3), seed=SEEDS)
def test_all_tests_everything(sizes: tuple[int, int, int], seed: int) -> None:
    assume(any(sizes))
    index = make_index(*sizes)
    manifest = make_manifest(index, "all", seed)
    check_partition(manifest, index)
    assert manifest.train == manifest.val == ()
    verify_manifest(manifest, index.cases, "here")


def test_all_is_read_back_and_other_protocols_still_need_classes(tmp_path: Path) -> None:
    manifest = make_manifest(INDEX, "all", exclude=["benign (1)"])
    write_manifest(tmp_path / "split.json", manifest)
    assert read_manifest(tmp_path / "split.json", INDEX) == manifest
    write_manifest(tmp_path / "split.json", replace(manifest, protocol="mine"))
    with pytest.raises(UserError, match="train has no benign image"):
        read_manifest(tmp_path / "split.json", INDEX)


def test_leaks_are_counted_in_training_and_validation() -> None:
    manifest = Manifest("holdout", 0, None, "", train=("a", "b"), val=("c",), test=("d", "e", "f", "g"))
    assert manifest.leaked({"a": 1, "d": 1, "c": 2, "e": 2, "f": 3, "g": 3}) == ("d", "e")


def test_curated_keeps_the_largest_image_and_drops_groups_of_several_classes() -> None:
    index = make_index(20, 20, 20)
    cases = tuple(replace(case, width=9) if case.case_id == "benign (3)" else case for case in index.cases)
    groups = {"benign (1)": 1, "benign (2)": 1, "benign (3)": 1, "malignant (1)": 2, "normal (1)": 2}
    manifest = make_manifest(Index(index.root, cases), "curated", groups=groups, exclude=["normal (2)"])
    assert manifest.excluded == ("benign (1)", "benign (2)", "malignant (1)", "normal (1)", "normal (2)")


def test_a_manifest_with_excluded_images_is_read_back(tmp_path: Path) -> None:
    index = make_index(20, 20, 20)
    manifest = make_manifest(index, "holdout", exclude=["benign (7)"])
    write_manifest(tmp_path / "split.json", manifest)
    assert read_manifest(tmp_path / "split.json", index) == manifest


ONE = {f"normal ({number})": 1 for number in range(1, 21)}
THREE = {case_id: number % 3 for number, case_id in enumerate(ONE)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "holdout", "exclude": ["benign (99)"]}, r"names 1 image.*the first 'benign \(99\)'"),
        ({"protocol": "holdout", "fold": 1}, r"split.fold=1: split=holdout has no folds"),
        ({"protocol": "grouped_kfold", "fold": 5}, r"split.fold=5: expected 0 to 4"),
        ({"protocol": "grouped_kfold", "folds": 30}, r"benign has 20 images in 20 groups.*expected 30.*split.folds=20"),
        (
            {"protocol": "grouped_kfold", "folds": 2, "groups": THREE},
            "at least: add patients$",
        ),
        (
            {"protocol": "grouped_kfold", "groups": ONE},
            "normal has 20 images in 1 group",
        ),
    ],
)
def test_protocols_that_cannot_be_carried_out(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_manifest(make_index(20, 20, 20), **arguments)


# ---------------------------------------------------------------------------------------------- manifest

INDEX = make_index(12, 10, 8)


def test_digests_know_the_lists_and_their_splits() -> None:
    manifest = make_manifest(INDEX, "published")
    swapped = replace(manifest, train=manifest.val, val=manifest.train)
    assert swapped.digest != manifest.digest
    assert swapped.test_digest == manifest.test_digest
    assert replace(manifest, protocol="mine", seed=9).digest == manifest.digest


@given(sizes=SIZES, seed=SEEDS, limit=st.integers(1, 80))
def test_a_subset_keeps_the_first_of_each_class(sizes: tuple[int, int, int], seed: int, limit: int) -> None:
    index = make_index(*sizes)
    labels = {case.case_id: case.label for case in index.cases}
    full = make_manifest(index, "holdout", seed)
    part = full.subset(labels, limit)
    for split in SPLITS:
        assert counts(part, index, split) == tuple(min(limit, count) for count in counts(full, index, split))
        for label in BUSI.names:
            ids = [case for case in getattr(full, split) if labels[case] == label]
            assert [case for case in getattr(part, split) if labels[case] == label] == ids[:limit]
    assert part.data_digest == full.data_digest
    assert (part == full) == (limit >= max(counts(full, index, "train")))


@pytest.mark.parametrize("protocol", ["published", "holdout"])
def test_a_manifest_reads_back_as_written(tmp_path: Path, protocol: str) -> None:
    manifest = make_manifest(INDEX, protocol, seed=3)
    write_manifest(tmp_path / "new" / "split.json", manifest)
    assert read_manifest(tmp_path / "new" / "split.json", INDEX) == manifest
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["split.json"]


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A manifest's JSON, to edit."""
    write_manifest(tmp_path / "split.json", make_manifest(INDEX, "published"))
    read: dict[str, Any] = json.loads((tmp_path / "split.json").read_text())
    return read


def refused(tmp_path: Path, content: Any, message: str, index: Index = INDEX) -> None:
    path = tmp_path / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        read_manifest(path, index)
    assert str(path) in str(error.value)


def test_a_hand_made_manifest_needs_no_digest(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["digest"]
    content["train"][0], content["val"][0] = content["val"][0], content["train"][0]
    (tmp_path / "split.json").write_text(json.dumps(content | {"protocol": "mine", "fold": 2}))
    manifest = read_manifest(tmp_path / "split.json", INDEX)
    assert (manifest.protocol, manifest.fold) == ("mine", 2)
    assert manifest.train == tuple(content["train"])


def test_files_that_are_no_manifest(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"split.manifest=.*gone.json: no such file"):
        read_manifest(tmp_path / "gone.json", INDEX)
    with pytest.raises(UserError, match="expected JSON"):
        read_manifest(tmp_path, INDEX)
    text = json.dumps(content)
    for broken in ("", "not JSON", text[: len(text) // 2]):
        refused(tmp_path, broken, "expected JSON")
    refused(tmp_path, [], "not a split manifest, schema, protocol, seed, fold, data_digest, train, val, test missing")
    refused(tmp_path, {key: content[key] for key in content if key not in ("val", "seed")}, "seed, val missing")
    refused(tmp_path, content | {"schema": 2}, "schema 2, this version reads 1")
    refused(tmp_path, content | {"val": "benign (1)"}, "val must be a list of case ids")
    refused(tmp_path, content | {"val": [1, 2]}, "val must be a list of case ids")


def test_edited_lists_with_the_old_digest(tmp_path: Path, content: dict[str, Any]) -> None:
    content["train"][0], content["val"][0] = content["val"][0], content["train"][0]
    refused(tmp_path, content, "the file says .* take the unedited file, or delete its digest")


def test_lists_that_do_not_fit_the_dataset(tmp_path: Path, content: dict[str, Any]) -> None:
    first = content["test"][0]
    refused(tmp_path, content | {"train": content["train"] + [first]}, r"'benign \(1\)' stands in train and in test")
    refused(tmp_path, content | {"test": content["test"] + [first]}, "stands in test and in test")
    refused(tmp_path, content | {"val": content["val"] + ["cyst (1)"]}, r"val names the unknown case 'cyst \(1\)'")
    refused(tmp_path, content | {"test": content["test"][1:]}, r"1 case of .* in no split, the first 'benign \(1\)'")
    moved = [case for case in content["val"] if case.startswith("normal")]
    edited = content | {"val": [case for case in content["val"] if case not in moved]}
    refused(tmp_path, edited | {"train": content["train"] + moved}, "val has no normal image")


def test_other_data_under_the_same_names(tmp_path: Path, content: dict[str, Any]) -> None:
    other = Index(INDEX.root, (replace(INDEX.cases[0], content_hash="changed"), *INDEX.cases[1:]))
    refused(tmp_path, content, f"made from data with digest {INDEX.digest}, set has {other.digest}", other)
