"""What a damaged, foreign or contested run directory may not do."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from busi_lab.errors import UserError
from busi_lab.files import read_rows, write_rows
from busi_lab.summary import read_summary
from busi_lab.tasks import load_task
from tests.golden import record
from tests.programs import SLOWLY, Programs, call, outcome

CUT = record.RUNS / "cut-classification"
FAST = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none")


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A run that was cut in its third epoch, to damage."""
    return Path(shutil.copytree(CUT, tmp_path / "run"))


def resume(run: Path, *more: str) -> tuple[int, str]:
    return outcome(
        "train", f"resume={run}", f"data.root={record.DATA}", f"data.cache_dir={run.parent / 'cache'}", *more
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", None])
def test_lost_weights_of_the_best_epoch_are_found_before_training(cut: Path, content: bytes | None) -> None:
    best = cut / "checkpoints/best.ckpt"
    best.unlink() if content is None else best.write_bytes(content)
    code, error = resume(cut)
    assert code == 2
    assert error.startswith(f"resume={cut}: the weights of its best epoch are lost ({best} is ")
    assert error.endswith("start the run again in a new directory")
    assert not (cut / "summary.json").exists()


def test_a_finished_run_keeps_the_best_weights_alone(cut: Path, tmp_path: Path) -> None:
    kept = Path(shutil.copytree(cut, tmp_path / "kept"))
    config = (kept / "config.yaml").read_text()
    last = "  last:\n    _target_: busi_lab.callbacks.LastCheckpoint\n"
    assert last in config
    (kept / "config.yaml").write_text(config.replace(last, f"{last}    keep: true\n"))
    for run, names in ((cut, ["best.ckpt"]), (kept, ["best.ckpt", "last.ckpt"])):
        assert resume(run) == (0, "")
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == names


def altered(run: Path, group: str, entry: dict[str, Any]) -> None:
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text())
    config[group]["foreign"] = entry
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.mark.parametrize(
    ("group", "entry"),
    [
        ("callbacks", {"_target_": "pathlib.Path.touch", "self": "proof"}),
        ("logger", {"_target_": "os.system", "command": "touch proof"}),
        (
            "callbacks",
            {"_target_": "lightning.pytorch.callbacks.LambdaCallback", "setup": {"_target_": "os.system", "c": "x"}},
        ),
        ("callbacks", {"_target_": "busi_lab.data.download.download"}),
    ],
)
def test_a_foreign_run_directory_names_no_code(
    cut: Path, monkeypatch: pytest.MonkeyPatch, group: str, entry: dict[str, Any]
) -> None:
    monkeypatch.chdir(cut.parent)
    altered(cut, group, entry)
    code, error = resume(cut)
    assert code == 2
    assert error.startswith(f"{cut}/config.yaml names ")
    assert "trust=[" in error
    assert not (cut.parent / "proof").exists()


def test_a_package_that_the_command_line_trusts(cut: Path) -> None:
    altered(cut, "callbacks", {"_target_": SLOWLY[0].partition("=")[2]})
    assert "names tests.slow.Slow" in resume(cut)[1]
    assert resume(cut, "trust=[tests]") == (0, "")


def test_a_foreign_configuration_asks_for_nothing(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    config = (cut / "config.yaml").read_text()
    (cut / "config.yaml").write_text(config.replace("name: null", "name: ${oc.env:SECRET}", 1))
    code, error = resume(cut)
    assert code == 2
    assert "refers to something else by ${...}" in error
    assert "hunter2" not in error


def test_a_foreign_checkpoint_asks_for_no_giant(tmp_path: Path) -> None:
    run = Path(shutil.copytree(record.RUNS / "finished-classification", tmp_path / "run"))
    path = run / "checkpoints/best.ckpt"
    content = torch.load(path, weights_only=True)
    for size in (60_000, -1, "32", None):
        content["hyper_parameters"]["image_size"] = size
        torch.save(content, path)
        with pytest.raises(UserError, match="at most 4096: it is refused"):
            load_task(run)
    code, error = outcome("train", *FAST, "data=phantom", "data.image_size=60000")
    assert (code, error) == (2, "data.image_size=60000: expected 32, where backbones keep one position, to 4096")


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    values = ["=1+1", "@sum", "+a", "-b", "-0.5", "+3", "'=x", "plain", "'quoted", "-", "\t=1"]
    write_rows(tmp_path / "table.csv", [{"name": value} for value in values], ["name"])
    cells = (tmp_path / "table.csv").read_text().splitlines()[1:]
    assert cells[:8] == ["'=1+1", "'@sum", "'+a", "'-b", "-0.5", "+3", "''=x", "plain"]
    assert [row["name"] for row in read_rows(tmp_path / "table.csv")] == values


def test_a_run_that_another_process_has_finished_meanwhile_is_left_alone(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one finishes between the check of the command and the lock."""
    run = tmp_path / "run"
    arguments = (*FAST, f"data.root={phantom_root}", f"hydra.run.dir={run}")
    assert call("train", *arguments) == 0
    before = (run / "summary.json").read_bytes(), (run / "predictions.csv").read_bytes()
    monkeypatch.setattr("busi_lab.train.refuse_occupied", lambda directory: None)
    code, error = outcome("train", *arguments, "seed=5")
    assert code == 2
    assert "holds a finished run" in error
    assert before == ((run / "summary.json").read_bytes(), (run / "predictions.csv").read_bytes())


def test_a_job_that_hangs_is_killed_after_a_while(programs: Programs, phantom_root: Path, tmp_path: Path) -> None:
    sweep = ("-m", *FAST, f"data.root={phantom_root}", "seed=0,1", "sweep.grace=1", "hydra.sweep.dir=sweep")
    started = programs.start("train", *sweep, "trainer.max_epochs=500", *SLOWLY, cwd=tmp_path)
    run = tmp_path / "sweep/seed0"
    started.until(lambda: (run / "metrics.csv").exists())
    assert started.process.pid is not None
    from tests.programs import descendants

    for process in descendants(started.process.pid):
        words = Path(f"/proc/{process}/cmdline").read_bytes()
        if b"fork_server" in words and descendants(process) == []:
            os.kill(process, signal.SIGSTOP)
    started.process.terminate()
    assert started.wait(60) == 128 + signal.SIGTERM
    assert "a job has not stopped within 1 seconds (sweep.grace) and is killed" in started.output
    assert not (run / "summary.json").exists()
    assert not (tmp_path / "sweep/seed1").exists()
    assert "the sweep was stopped; the same command continues it" in started.output


def test_summaries_are_whole(tmp_path: Path) -> None:
    run = Path(shutil.copytree(record.RUNS / "finished-classification", tmp_path / "run"))
    assert read_summary(run).tested
    (run / "summary.json").write_text(json.dumps(json.loads((run / "summary.json").read_text()))[:-40])
    with pytest.raises(UserError, match="it is cut or not JSON"):
        read_summary(run)
