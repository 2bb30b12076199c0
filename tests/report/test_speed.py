"""Quality beside time and size, from what busi-bench has written."""

from pathlib import Path

import pytest

from busi_lab.bench_record import Bench, Figure, write_bench
from busi_lab.errors import UserError
from busi_lab.report.results.speed import read_speeds, unbeaten
from busi_lab.summary import Summary, write_summary
from tests.programs import outcome


def figures(label: str, milliseconds: float, dice: float | None, size: float) -> list[Figure]:
    about = {"metrics": {} if dice is None else {"val/dice": dice}, "bytes": size * 1e6, "parameters": 4_000_000}
    about["image_size"] = 256
    return [
        Figure("predict", f"{label}: network, one scan, median", "ms", (milliseconds, milliseconds + 2), False, about),
        Figure("predict", f"{label}: network, one scan, 95th percentile", "ms", (2 * milliseconds,), False, about),
        Figure("predict", f"{label}: busi-predict, all files written", "scans/s", (50.0, 60.0), True, about),
        Figure("predict", f"{label}: peak memory, 40 scans", "MB", (500.0,), False, about),
    ]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    found = [*figures("wide, torch", 40.0, 0.70, 45.0), *figures("narrow, openvino int8", 8.0, 0.69, 5.0)]
    loop = Figure("loop", "tiny", "images/s", (1.0,), True)
    write_bench(tmp_path / "bench.json", Bench((*found, loop), {"processor": "a processor", "cores": 2}))
    return tmp_path / "bench.json"


def test_networks_are_read_with_the_medians_of_rounds(bench: Path) -> None:
    speeds = read_speeds(bench)
    assert speeds.machine == "a processor, 2 cores"
    wide, narrow = speeds.networks
    assert (wide.label, wide.milliseconds, wide.speed, wide.megabytes) == ("wide, torch", (41.0, 80.0), 55.0, 45.0)
    assert narrow.quality == {"dice": 0.69}


def test_what_no_other_beats_in_both() -> None:
    points = [(8.0, 0.69), (40.0, 0.70), (30.0, 0.65), (50.0, 0.70), (8.0, 0.60)]
    assert unbeaten(points) == [(8.0, 0.69), (40.0, 0.70)]
    assert unbeaten([]) == []


def test_a_comparison_shows_them(bench: Path, trained: dict[str, Path], tmp_path: Path) -> None:
    code, error = outcome("compare", str(trained["joint"]), "--bench", str(bench), "--out", str(tmp_path / "out"))
    assert (code, error) == (0, "")
    page = (tmp_path / "out/report.html").read_text()
    assert "How fast and how large" in page
    assert "Validation dice and time of one scan: wide, torch 41" in page
    assert (tmp_path / "out/speed.png").exists()
    assert "narrow, openvino int8" in (tmp_path / "out/table.md").read_text()


def test_without_predictions_nothing_is_written(tmp_path: Path) -> None:
    write_bench(tmp_path / "bench.json", Bench((Figure("loop", "tiny", "images/s", (1.0,), True),), {}))
    with pytest.raises(UserError, match=r"no predictions in it; call busi-bench predict --run RUN --out DIR"):
        read_speeds(tmp_path / "bench.json")
    damaged = Figure("predict", "x: network, one scan, median", "ms", (1.0,))
    write_bench(tmp_path / "bench.json", Bench((damaged,), {}))
    write_summary(tmp_path / "run", Summary("finished"))
    code, error = outcome("compare", str(tmp_path / "run"), "--bench", str(tmp_path / "bench.json"))
    assert code == 2
    assert "its predictions are damaged; measure again" in error
    assert not (tmp_path / "run/comparison").exists()
