"""busi-compare --baseline: exit codes and lines, on runs made here."""

from pathlib import Path
from typing import Any

import pytest

from busi_lab.compare import main
from busi_lab.summary import DataRecord, SplitRecord, Summary, write_summary


def make_run(folder: Path, accuracy: float | None, seed: int = 0, test_set: str = "t", **more: float) -> None:
    metrics: dict[str, Any] = {"val/f1": 0.5, **{f"test/{name}": value for name, value in more.items()}}
    metrics |= {} if accuracy is None else {"test/accuracy": accuracy}
    split = SplitRecord("holdout", 0, digest="s", test_digest=test_set, leaked=0)
    data = DataRecord("busi", digest="dd", test=30)
    write_summary(
        folder,
        Summary("finished", task="classification", experiment="a", seed=seed, split=split, data=data, metrics=metrics),
    )


def call(runs: Path, *arguments: str) -> int:
    try:
        main([str(runs), "--format", "csv", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    """Two seeds with a mean accuracy of 0.80 and an AUROC of 0.90."""
    for seed, accuracy in enumerate((0.78, 0.82)):
        make_run(tmp_path / f"before/{seed}", accuracy, seed, auroc=0.9)
    assert call(tmp_path / "before", "--out", str(tmp_path / "old")) == 0
    return tmp_path / "old/table.csv"


@pytest.mark.parametrize(
    ("now", "tolerance", "code"),
    [((0.76, 0.80), "0.02", 0), ((0.76, 0.80), "0.019", 1), ((0.70, 0.80), "0.02", 1), ((0.9, 0.9), "0", 0)],
)
def test_means_over_runs_may_fall_by_the_tolerance(
    baseline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    now: tuple[float, ...],
    tolerance: str,
    code: int,
) -> None:
    for seed, accuracy in enumerate(now):
        make_run(tmp_path / f"now/{seed}", accuracy, seed, auroc=0.9, dice=0.1)
    assert call(tmp_path / "now", "--baseline", str(baseline), "--tolerance", tolerance) == code
    last = capsys.readouterr().out.strip().splitlines()[-1]
    mean = sum(now) / 2
    if code:
        words = f"accuracy 0.800 before, {mean:.3f} now, {mean - 0.8:+.3f}"
        assert last == f"worse than the baseline: a (classification, holdout, data dd): {words}"
    else:
        assert last == f"no figure is worse than the baseline (2 figures compared, tolerance {float(tolerance):g})"


def test_a_baseline_that_a_spreadsheet_saved_is_read(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline.write_bytes(b"\xef\xbb\xbf" + baseline.read_bytes())
    make_run(tmp_path / "now/0", 0.8, auroc=0.9)
    assert call(tmp_path / "now", "--baseline", str(baseline)) == 0
    assert "no figure is worse" in capsys.readouterr().out


def test_a_figure_that_is_gone_fails(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "now/0", 0.9)  # without an AUROC
    assert call(tmp_path / "now", "--baseline", str(baseline)) == 1
    assert "missing now: a (classification, holdout, data dd) has not all" in capsys.readouterr().out


def test_the_baseline_may_be_the_table_that_is_replaced(baseline: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "now/0", 0.5, auroc=0.9)
    assert call(tmp_path / "now", "--out", str(baseline.parent), "--baseline", str(baseline)) == 1


def test_missing_experiments_fail_and_other_test_sets_are_refused(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "untested/0", None)
    assert call(tmp_path / "untested", "--baseline", str(baseline)) == 1
    assert "missing now: a (classification, holdout, data dd)" in capsys.readouterr().out
    make_run(tmp_path / "other/0", 0.9, test_set="other", auroc=0.9)
    assert call(tmp_path / "other", "--baseline", str(baseline)) == 2
    assert "another test set: a (classification, holdout, data dd)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is no file"),
        ("run,status\na,finished\n", "lacks the columns task, experiment"),
        ("", "has no row"),
        ("run,status,task,experiment,data_digest,protocol,test_digest\na,finished,c,a,d,p,t\n", "has no finished run"),
        ("run,status,test/accuracy\na,finished,high\n", "cannot be read as a table.csv"),
    ],
)
def test_a_baseline_of_no_use_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    make_run(tmp_path / "now/0", 0.8)
    path = tmp_path / "baseline.csv"
    if content is not None:
        path.write_text(content)
    assert call(tmp_path / "now", "--baseline", str(path)) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and words in printed.err and printed.out == ""
    assert not (tmp_path / "now/comparison").exists()
    assert call(tmp_path / "now", "--tolerance", "-1") == 2
