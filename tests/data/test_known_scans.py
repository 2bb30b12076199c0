"""A scan held against known ones."""

from pathlib import Path

import pytest

from busi_lab.data.index import index_dataset, read_case
from busi_lab.data.known_scans import KnownScans
from busi_lab.data.phantom import generate_phantoms


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_phantoms(tmp_path_factory.mktemp("known") / "set", {"benign": 3, "malignant": 3, "normal": 2})


def test_a_copy_is_found_whatever_was_done_to_it_and_nothing_else(root: Path) -> None:
    index = index_dataset(root)
    images = {case.case_id: read_case(root, case)[0] for case in index.cases}
    first, *others = images
    known = KnownScans({name: lambda name=name: images[name] for name in others})  # type: ignore[misc]
    assert known.near_copy(images[first]) is None
    name = others[3]
    for copy in (images[name], images[name][:, ::-1], 255 - images[name], images[name][8:-8, 10:-10]):
        found = known.near_copy(copy.copy())
        assert found is not None
        assert found.name == name
        assert found.similarity > 0.5
