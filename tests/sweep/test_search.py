"""A search for hyperparameters: its space, what it does not take, its trials, how it goes on, and pruned runs."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from busi_lab.errors import UserError
from busi_lab.files import read_rows
from busi_lab.report.results.search import Search, Trial, read_search
from busi_lab.summary import read_summary
from busi_lab.sweep.search.settings import Choices, Range, search_settings
from busi_lab.sweep.search.study import distributions, identity, open_study, overrides_of
from tests.programs import SLOWLY, Programs, call
from tests.report.said import read

Sweep = Callable[..., tuple[int, str, str]]
LR = {"optim": {"lr": {"low": 1e-5, "high": 1e-2, "log": True}}}
ONLY_LR = "search.space={optim: {name: null, weight_decay: null}, model: {dropout: null}}"

optuna = pytest.importorskip("optuna")


def test_a_space_has_the_keys_of_the_configuration() -> None:
    space = {**LR, "model": {"dropout": None, "width": {"low": 8, "high": 32, "step": 8}}, "seed": {"choices": [1, 2]}}
    settings, found = search_settings({"trials": 3, "space": space})
    assert settings.trials == 3
    assert found == {
        "optim.lr": Range(1e-5, 1e-2, True, None),
        "model.width": Range(8, 32, False, 8),
        "seed": Choices((1, 2)),
    }
    kinds = {key: type(item).__name__ for key, item in distributions(found).items()}
    assert kinds == {
        "optim.lr": "FloatDistribution",
        "model.width": "IntDistribution",
        "seed": "CategoricalDistribution",
    }


@pytest.mark.parametrize(
    ("group", "line"),
    [
        ({"space": {}}, r"search\.space: expected a key of the configuration at least, found none"),
        ({"space": LR, "trials": 0}, r"search\.trials=0: expected at least 1"),
        ({"space": LR, "sampler": "tpee"}, r"search\.sampler=tpee; did you mean tpe\?"),
        ({"space": LR, "sampler": "grid"}, r"search\.space\.optim\.lr: sampler=grid needs choices"),
        ({"space": LR, "pruner": "median", "folds": 2}, r"search\.pruner=median beside search\.folds"),
        ({"space": {"seed": 3}}, r"search\.space\.seed=3: expected \{low: A, high: B\}"),
        ({"space": {"seed": {"low": 3, "high": 1}}}, r"search\.space\.seed: expected low below high"),
        ({"space": {"a": {"low": 0, "high": 1, "log": True}}}, r"search\.space\.a\.low=0: expected more than 0"),
        ({"space": {"a": {"choices": []}}}, r"search\.space\.a: expected choices, a list of values"),
        ({"space": {"a": {"low": 0, "high": 1, "stp": 1}}}, r"search\.space\.a\.stp: unknown key; did you mean step\?"),
    ],
)
def test_what_it_does_not_take(group: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        search_settings(group)


def test_values_are_typed_as_overrides() -> None:
    params = {
        "optim.lr": 0.000123456,
        "optim.name": "sgd",
        "model.freeze": None,
        "seed": 3,
        "test": True,
        "a": "[1, 2]",
    }
    assert overrides_of(params) == [
        *("optim.lr=0.0001235", "optim.name=sgd", "model.freeze=null", "seed=3", "test=true", "a=[1, 2]")
    ]


def test_a_journal_belongs_to_one_search(tmp_path: Path) -> None:
    settings, space = search_settings({"space": LR, "sampler": "random"})
    first = identity(space, "val/f1", "max", ["seed=0"])
    study = open_study(tmp_path, settings, space, "max", first)
    drawn = study.ask(distributions(space)).params["optim.lr"]
    again = open_study(tmp_path, settings, space, "max", first)
    assert again.trials[0].params == {"optim.lr": drawn}
    assert again.ask(distributions(space)).params["optim.lr"] != drawn  # it does not begin anew
    with pytest.raises(UserError, match="belongs to another search"):
        open_study(tmp_path, settings, space, "max", identity(space, "val/f1", "max", ["seed=1"]))
    (tmp_path / "journal.log").write_text("{")
    with pytest.raises(UserError, match=r"journal\.log"):
        open_study(tmp_path, settings, space, "max", first)


def test_a_search_goes_on_with_more_trials_and_touches_no_test_image(sweep: Sweep, tmp_path: Path) -> None:
    common = ("search=default", ONLY_LR, "search.startup=1")
    code, output, errors = sweep(*common, "search.trials=2")
    assert code == 0, errors
    (directory,) = (tmp_path / "sweeps").iterdir()
    assert directory.name.startswith("search-")
    stamps = {path: path.stat().st_mtime_ns for path in directory.glob("trial*/summary.json")}
    code, output, errors = sweep(*common, "search.trials=3")
    assert code == 0, errors
    assert len(list((tmp_path / "sweeps").iterdir())) == 1  # the number of trials is no part of its name
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    rows = read_rows(directory / "trials.csv")
    assert [(row["trial"], row["state"]) for row in rows] == [("0", "complete"), ("1", "complete"), ("2", "complete")]
    for row in rows:
        summary = read_summary(directory / f"trial000{row['trial']}")
        assert summary.metrics["val/f1"] == pytest.approx(float(row["value"]), rel=1e-6) and not summary.tested
    assert "No test image was touched" in output
    best = max(rows, key=lambda row: float(row["value"]))
    assert f"best trial {best['trial']} of 3" in output
    assert f"busi-eval run={directory / 'trial000'}{best['trial']}" in output
    assert call("train", "--config-dir", str(directory), "experiment=best", "--cfg", "job") == 0


def test_a_run_that_is_pruned_ends_after_its_epoch(phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "prune").touch()
    fast = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none", f"data.root={phantom_root}")
    assert call("train", *fast, "trainer.max_epochs=5", f"hydra.run.dir={run}") == 0
    summary = read_summary(run)
    assert (summary.status, summary.epochs, summary.tested) == ("pruned", 1, False)
    assert summary.metrics["val/f1"] == pytest.approx(float(read_rows(run / "metrics.csv")[0]["val/f1"]))
    assert not (run / "checkpoints/last.ckpt").exists()
    with pytest.raises(UserError, match=r"all 1 runs below .* were pruned by a search"):
        read(tmp_path)


def test_importance_and_history_stand_in_the_report(tmp_path: Path) -> None:
    trials = [{"trial": i, "state": "complete", "value": i / 10, "params": {"optim.lr": 10.0**-i}} for i in range(4)]
    trials.append({"trial": 4, "state": "pruned", "value": None, "params": {"optim.lr": 0.5}})
    content = {"objective": "val/f1", "mode": "max", "folds": 3, "importance": {"optim.lr": 1.0}, "trials": trials}
    (tmp_path / "search.json").write_text(json.dumps(content))
    found = read_search(tmp_path)
    assert found == Search(
        "val/f1",
        "max",
        3,
        tuple(Trial(t["trial"], t["state"], t["value"], t["params"]) for t in trials),  # type: ignore[arg-type]
        {"optim.lr": 1.0},
    )
    assert found.best is not None and found.best.number == 3 and len(found.complete) == 4
    (tmp_path / "search.json").write_text("[]")
    assert read_search(tmp_path) is None


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(programs: Programs, phantom_root: Path, tmp_path: Path) -> None:
    command = (
        *("-m", "search=default", ONLY_LR, "search.trials=3", "trainer=smoke", "model=custom_cnn", "logger=none"),
        *("data.image_size=32", f"data.root={phantom_root}", "hydra.sweep.dir=sweep", "trainer.max_epochs=3", *SLOWLY),
    )
    for _ in range(2):
        started = programs.start("train", *command, cwd=tmp_path)
        before = len(list(tmp_path.glob("sweep/trial*/metrics.csv")))
        started.until(lambda before=before: len(list(tmp_path.glob("sweep/trial*/metrics.csv"))) > before)
        os.kill(started.process.pid or 0, signal.SIGKILL)
        started.wait()
    output = programs.start("train", *command, cwd=tmp_path).finish()
    assert "of 3: val/f1" in output
    rows = read_rows(tmp_path / "sweep/trials.csv")
    assert [row["state"] for row in rows] == ["complete"] * 3
    for row in rows:
        epochs = [line["epoch"] for line in read_rows(tmp_path / f"sweep/trial000{row['trial']}/metrics.csv")]
        assert epochs == ["0", "1", "2"]  # every epoch once
