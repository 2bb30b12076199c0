"""busi-bench: what it writes, how it compares, and what it refuses; its parts are measured for a moment."""

import json
from pathlib import Path

import numpy as np
import pytest

from busi_lab.bench_record import Bench, Figure, read_bench, this_machine, write_bench
from busi_lab.benchmarks.settings import Settings
from busi_lab.benchmarks.table import comparison, median_interval, ratio_of_medians, table
from busi_lab.errors import UserError
from tests.programs import call, outcome

SPEED = Figure("loop", "tiny", "images/s", (10.0, 11.0, 12.0, 11.0, 10.0), True, {"batch_size": 4})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_bench(tmp_path / "bench.json", Bench((SPEED,), this_machine()))
    found = read_bench(tmp_path / "bench.json")
    assert found.figures == (SPEED,)
    assert found.machine["cores"] >= 1


def test_settings_survive_the_way_to_a_process() -> None:
    settings = Settings(2, tasks=("joint",), runs=("a", "b"))
    assert Settings.from_text(settings.to_text()) == settings


def test_the_interval_of_a_median_holds_it_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(5)
    held = sum(low <= 3.0 <= high for low, high in (median_interval(rng.normal(3, 1, 15)) for _ in range(300)))
    assert 0.90 * 300 <= held <= 299


def test_ratios_say_what_is_sure() -> None:
    faster = Figure("loop", "tiny", "images/s", tuple(2 * value for value in SPEED.samples), True)
    ratio, low, high = ratio_of_medians(faster, SPEED)
    assert ratio == pytest.approx(2.0)
    assert 1.5 < low < 2 < high < 2.5
    assert "better" in comparison([faster], [SPEED])[2]
    assert "worse" in comparison([SPEED], [faster])[2]
    same = comparison([SPEED], [SPEED])[2]
    assert "better" not in same
    assert "worse" not in same
    slower = Figure("start", "first step", "s", (2.0, 2.1, 2.0)), Figure("start", "first step", "s", (1.0, 1.1, 1.0))
    assert "worse" in comparison(slower[:1], slower[1:])[2]
    assert len(comparison([SPEED], [slower[0]])) == 2  # nothing in common but the head


def test_the_table_shows_median_and_range() -> None:
    lines = table([SPEED])
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        *("loop: tiny", "11 images/s", "10 to 12", "10", "12", "5")
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "expected a bench.json of busi-bench; measure again"),
        ('{"schema": 9}', "schema 9, expected 1; measure again"),
        ('{"schema": 1, "figures": [{"part": "x"}], "machine": {}}', "expected a bench.json of busi-bench"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        read_bench(path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rounds", "0"), "--rounds 0: expected at least 1"),
        (("--run", "/no/such"), "/no/such: no such folder; give a run with --run"),
        (("--against", "/no/such.json"), "/no/such.json cannot be read (No such file or directory)"),
        (("everything",), "invalid choice: 'everything'"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    code, error = outcome("bench", *arguments)
    assert code == 2
    assert words in error


@pytest.mark.slow
def test_every_part_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("--quick", "--image-size", "64", "--count", "4", "--images", "800", "--many", "3")
    parts = ("loop", "start", "loader", "predict", "encoder", "near-copies", "compare")
    assert call("bench", *parts, *short, "--out", str(tmp_path / "out")) == 0
    content = json.loads((tmp_path / "out/bench.json").read_text())
    figures = {f"{item['part']}: {item['name']}": item["samples"] for item in content["figures"]}
    assert {item["part"] for item in content["figures"]} == set(parts)
    assert all(min(samples) > 0 for name, samples in figures.items() if "add" not in name)
    ratios = figures["loop: classification 64 px, batch 4, 32-true, busi-train / bare loop"]
    ours, bare = (
        figures[f"loop: classification 64 px, batch 4, 32-true, {name}"] for name in ("busi-train", "bare loop")
    )
    assert ratios == pytest.approx([one / other for one, other in zip(ours, bare, strict=True)])
    assert (tmp_path / "out/bench.png").stat().st_size > 1000
    output = capsys.readouterr().out
    assert "| loop: joint 64 px, batch 4, bf16-mixed, busi-train" in output
    assert call("bench", "encoder", *short, "--against", str(tmp_path / "out/bench.json")) == 0
    assert "now / before" in capsys.readouterr().out
