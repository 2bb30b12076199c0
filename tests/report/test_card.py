"""The model card of a run says what it is, what it rests on and what it is not for."""

import csv
from pathlib import Path

import pytest

from busi_lab.card import make_card
from busi_lab.errors import UserError
from busi_lab.run_directory import read_run
from busi_lab.summary import Summary, write_summary
from tests.programs import call, outcome


def test_a_card_has_the_figures_of_its_run(trained: dict[str, Path]) -> None:
    card = make_card(trained["joint"])
    run = read_run(trained["joint"])
    assert card.startswith("---\nlibrary_name: busi-lab\n")
    assert "It is not a medical device, and no decision about a patient may rest on it." in card
    assert "Its scans were made by a program, so it says nothing about patients." in card
    assert f"It has learnt from {run.summary.data.train} images of" in card
    assert f"| accuracy | {run.summary.metrics['test/accuracy']:.3f}<br>" in card
    with (trained["joint"] / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "malignant"]
    called = sum(row["prediction"] == "malignant" for row in rows) / len(rows)
    assert f"| malignant | {len(rows)} | {called:.3f}<br>" in card
    assert f"busi-predict --run {trained['joint'].name} scan.png" in card


def test_what_has_no_card_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run directory, summary\.json is missing; give a finished run"):
        make_card(tmp_path)
    write_summary(tmp_path / "failed", Summary("failed", error="no memory"))
    with pytest.raises(UserError, match=r"the run failed \(no memory\); give a finished one"):
        make_card(tmp_path / "failed")


def test_the_card_is_written_by_a_command(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(trained["joint"]), tmp_path / "cards" / "joint.md"
    assert call("datasets", "card", run) == 0
    card = make_card(trained["joint"])
    assert capsys.readouterr().out.rstrip("\n") == card.rstrip("\n")
    assert call("datasets", "card", run, "--out", str(out)) == 0
    assert out.read_text(encoding="utf-8") == card
    assert capsys.readouterr().out == f"{out} is the card of {run}\n"
    expected = f"--out {out}: expected a new file; it is there already and is not overwritten; choose another"
    assert outcome("datasets", "card", run, "--out", str(out)) == (2, expected)
    beside = tmp_path / "other.md"
    code, message = outcome("datasets", "card", str(tmp_path), "--out", str(beside))
    assert code == 2 and message.endswith("give a finished run") and not beside.exists()
    code, message = outcome("datasets", "card", run, "--out", str(out / "below.md"))
    assert code == 2 and message.startswith(f"--out {out / 'below.md'} cannot be written (")
