"""Files are written whole, and numbers come back as they were."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from busi_lab.files import PROBABILITY_DIGITS, read_rows, write_rows


@settings(max_examples=20)
@given(values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_probabilities_come_back_as_they_were(tmp_path_factory: object, values: list[float]) -> None:
    """Seven digits make ties: 0.3 and its neighbour are told apart by the eighth."""
    neighbours = [0.3, float(np.nextafter(np.float32(0.3), np.float32(1)))]
    path = Path(tmp_path_factory.mktemp("t") / "table.csv")  # type: ignore[attr-defined]
    written = [float(np.float32(value)) for value in (*neighbours, *values)]
    write_rows(path, [{"p": value} for value in written], ["p"], PROBABILITY_DIGITS)
    found = [np.float32(float(row["p"])) for row in read_rows(path)]
    assert found == [np.float32(value) for value in written]
    assert found[0] < found[1]
