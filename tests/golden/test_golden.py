"""What older versions have written is read, compared, continued, evaluated and predicted with; figures stay."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from busi_lab.predict import load
from busi_lab.run_directory import read_run
from tests.golden import record
from tests.programs import Programs, call

RECORD: dict[str, Any] = json.loads(record.RECORD.read_text(encoding="utf-8"))
SAME_MACHINE = record.environment() == RECORD["environment"]
"""Whether bytes can be equal: processors and versions of torch round differently."""


def assert_as_recorded(name: str, found: dict[str, str]) -> None:
    """Equal bytes where they can be; elsewhere the same splits, columns, epochs, and a first loss that is close."""
    expected = RECORD["runs"][name]
    assert found.keys() == expected.keys(), name
    if SAME_MACHINE:
        assert found == expected, name
        return
    assert found["test"] == expected["test"], name
    if "metrics" in expected:
        ours, theirs = (text.splitlines() for text in (found["metrics"], expected["metrics"]))
        assert (ours[0], len(ours)) == (theirs[0], len(theirs)), name
        loss = ours[0].split(",").index("train/loss")
        values = [float(table[1].split(",")[loss]) for table in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], rel=0.05), name


@pytest.mark.parametrize("kind", record.KINDS)
def test_a_run_that_an_older_version_was_cut_in_is_continued(kind: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(record.RUNS / f"cut-{kind}", tmp_path / "run"))
    assert call("train", f"resume={run}", f"data.root={record.DATA}", f"data.cache_dir={tmp_path / 'cache'}") == 0
    assert_as_recorded(f"resumed {kind}", record.describe(run))
    undisturbed = record.describe(record.RUNS / f"finished-{kind}")
    assert undisturbed["test"] == record.describe(run)["test"]
    if SAME_MACHINE:
        assert undisturbed == record.describe(run)


@pytest.mark.parametrize("kind", record.KINDS)
def test_a_run_of_an_older_version_is_evaluated(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, probes = record.RUNS / f"finished-{kind}", () if kind == "segmentation" else ("shortcuts=true",)
    arguments = (f"run={run}", f"data.root={record.DATA}", "trainer=cpu", *probes, "hydra.run.dir=result")
    assert call("evaluate", *arguments) == 0
    found, expected = record.describe(tmp_path / "result"), RECORD["runs"][f"evaluated {kind}"]
    if SAME_MACHINE:
        assert found == {name: expected[name] for name in found}
    predicted, before = read_run(tmp_path / "result").predictions, read_run(run).predictions
    assert [row["image"] for row in predicted] == [row["image"] for row in before]
    for name in ("p_malignant", "dice"):
        for row, old in zip(predicted, before, strict=True):
            if old.get(name):
                assert float(row[name]) == pytest.approx(float(old[name]), abs=1e-3)


def test_runs_of_an_older_version_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(record.RUNS / f"finished-{kind}") for kind in record.KINDS]
    assert call("compare", *folders, "--out", str(tmp_path / "out"), "--format", "html,md,csv") == 0
    output = capsys.readouterr().out
    for words in ("classification on busi, holdout", "segmentation on busi, holdout", "multitask on busi, holdout"):
        assert words in output
    assert (tmp_path / "out/report.html").exists()


@pytest.mark.parametrize("kind", record.KINDS)
def test_a_run_of_an_older_version_predicts(kind: str) -> None:
    run = read_run(record.RUNS / f"finished-{kind}")
    predictor = load(run.path)
    row = run.predictions[0]
    found = predictor.predict(record.DATA / row["label"] / f"{row['image']}.png")
    if "p_malignant" in row:
        assert found.probabilities is not None
        assert found.probabilities["malignant"] == pytest.approx(float(row["p_malignant"]), abs=1e-3)
    assert (found.mask is None) == (kind == "classification")


@pytest.mark.slow
def test_everything_gives_what_it_gave_before(programs: Programs, tmp_path: Path) -> None:
    """Every experiment, every task, resumed, evaluated, a sweep; each forked, where the record was made by new ones."""

    def carry_out(name: str, *arguments: str, cwd: Path) -> None:
        variables = {"BUSI_LAB_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
        assert programs.start(name, *arguments, cwd=cwd, environment=variables).wait(900) == 0

    found = dict(record.record(tmp_path, carry_out))
    assert found.keys() == RECORD["runs"].keys()
    for name, digests in found.items():
        assert_as_recorded(name, digests)
