import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busi_lab.data.groups import (
    COLUMNS,
    GROUPS,
    Group,
    Pair,
    components,
    group_numbers,
    join_patients,
    read_groups,
    write_groups,
)
from busi_lab.data.index import Case, Index
from busi_lab.errors import UserError


@pytest.fixture
def index() -> Index:
    names = [(label, f"{label} ({number})") for label in ("benign", "malignant") for number in range(1, 7)]
    return Index(Path("set"), tuple(Case(name, label, f"{name}.png", (), 8, 8, 4, name) for label, name in names))


@pytest.fixture
def groups(index: Index) -> list[Group]:
    """Two benign images, and a benign one that is connected to two malignant ones."""
    by_id = {case.case_id: case for case in index.cases}
    links = [
        [("benign (1)", "benign (2)", 0.75, 0.9)],
        [("benign (3)", "malignant (1)", 0.5, 0.6), ("malignant (1)", "malignant (2)", 0.4, 1.0)],
    ]
    found = []
    for number, pairs in enumerate(links, start=1):
        members = dict.fromkeys(name for pair in pairs for name in pair[:2])
        cases = tuple(by_id[name] for name in members)
        found.append(Group(number, cases, tuple(Pair(*pair, mirrored=False) for pair in pairs)))
    return found


def test_a_group_knows_its_best_similarities_and_its_conflicts(groups: list[Group]) -> None:
    assert groups[0].similarity == {"benign (1)": 0.75, "benign (2)": 0.75}
    assert groups[1].similarity == {"benign (3)": 0.5, "malignant (1)": 0.5, "malignant (2)": 0.4}
    assert [group.conflict for group in groups] == ["", "label+mask"]


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_components_are_the_classes_of_being_connected(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    reach = np.eye(count, dtype=bool)
    for a, b in edges:
        reach[a, b] = reach[b, a] = True
    for _ in range(count):
        reach = reach @ reach
    expected = {tuple(np.flatnonzero(row).tolist()) for row in reach if row.sum() > 1}
    found = [tuple(nodes) for nodes in components(count, edges)]
    assert set(found) == expected and found == sorted(found)


# ----------------------------------------------------------------------------------------- the CSV file


def test_patients_and_near_copies_are_joined(index: Index) -> None:
    ids = [case.case_id for case in index.cases]
    copies = {ids[2]: 1, ids[5]: 1, ids[7]: 4, ids[8]: 4}
    assert join_patients(index.cases, copies) == copies
    # p: 0, 1, 2, and by the copy of 2 also 5, whose patient q brings 6; 1 is a name like the group's number.
    patients = {0: "p", 1: "p", 2: "p", 5: "q", 6: "q", 9: "1", 10: "alone"}
    cases = [replace(case, patient=patients.get(number, "")) for number, case in enumerate(index.cases)]
    joined = join_patients(cases, copies)
    assert joined == {**{ids[number]: 1 for number in (0, 1, 2, 5, 6)}, ids[7]: 2, ids[8]: 2}


def test_what_is_written_is_read_back(index: Index, groups: list[Group], tmp_path: Path) -> None:
    write_groups(tmp_path / GROUPS, groups, index)
    numbers = read_groups(tmp_path / GROUPS, index)
    expected = {"benign (1)": 1, "benign (2)": 1, "benign (3)": 2, "malignant (1)": 2, "malignant (2)": 2}
    assert numbers == group_numbers(groups) == expected
    rows = list(csv.DictReader((tmp_path / GROUPS).open()))
    assert tuple(rows[0]) == COLUMNS
    assert {row["data_digest"] for row in rows} == {index.digest}
    assert float(rows[0]["similarity"]) == pytest.approx(groups[0].pairs[0].similarity, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("benign (2)", "benign (777)"), "line 3: expected an image of .* 'benign \\(777\\)'"),
        (
            lambda text: text + text.splitlines()[1].replace("1,", "9,", 1) + "\n",
            "stands in group 1 and again in group 9",
        ),
        (lambda text: text.replace("group,image", "number,scan"), "expected the columns .* group, image missing"),
        (lambda text: re.sub(r"[0-9a-f]{16}", "0" * 16, text), "another version of the dataset"),
        (lambda text: text.replace("\n1,", "\none,"), "line 2: expected a group's number, found 'one'"),
        (lambda text: "", "columns group, image, data_digest, group, image, data_digest missing"),
        (lambda text: text.split(",conflict")[0] + "\n1\n", "missing"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    index: Index, groups: list[Group], tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    path = tmp_path / GROUPS
    write_groups(path, groups, index)
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message) as caught:
        read_groups(path, index)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_and_a_binary_file_are_refused(index: Index, tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00group")
    for name in ("none.csv", "binary.csv"):
        with pytest.raises(UserError, match="cannot be read"):
            read_groups(tmp_path / name, index)
