"""A search for hyperparameters: its space, what it does not take, its trials, how it goes on, and pruned runs."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from busi_lab.errors import UserError
from busi_lab.files import read_rows
from busi_lab.report.results.search import Search, Trial, read_search
from busi_lab.summary import Summary, read_summary, write_summary
from busi_lab.sweep.record import JobRecord, SweepRecord, read_sweep
from busi_lab.sweep.search.loop import Loop
from busi_lab.sweep.search.result import _experiment
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
    first = identity(space, "val/f1", "max", None, ["seed=0"])
    assert first == identity(space, "val/f1", "max", None, ["seed=0", "sweep.max_failures=3"])
    study = open_study(tmp_path, settings, space, "max", first)
    drawn = study.ask(distributions(space)).params["optim.lr"]
    again = open_study(tmp_path, settings, space, "max", first)
    assert again.trials[0].params == {"optim.lr": drawn}
    assert again.ask(distributions(space)).params["optim.lr"] != drawn  # it does not begin anew
    for folds, seed in ((None, 1), (3, 0)):
        with pytest.raises(UserError, match="belongs to another search"):
            open_study(tmp_path, settings, space, "max", identity(space, "val/f1", "max", folds, [f"seed={seed}"]))
    (tmp_path / "journal.log").write_text("{")
    with pytest.raises(UserError, match=r"journal\.log"):
        open_study(tmp_path, settings, space, "max", first)


def test_a_step_that_is_a_fraction_divides_whole_ends() -> None:
    _, space = search_settings({"space": {"a": {"low": 0, "high": 1, "step": 0.25}}})
    distribution = distributions(space)["a"]
    assert (distribution.low, distribution.high, distribution.step) == (0.0, 1.0, 0.25)


class _Proposals:
    """Stands for a conductor: jobs fail, finish, or are not started after a failure."""

    def __init__(self, directory: Path, fails: bool = False) -> None:
        self.gives_up, self.titles = False, list[str]()
        self._directory, self._fails, self._waiting = directory, fails, list[Path]()

    def add(self, title: str, job: JobRecord) -> None:
        self.titles.append(title)
        self._waiting.append(self._directory / job.name)

    def step(self) -> list[Path]:
        done, self._waiting = self._waiting, []
        for directory in done if not self.gives_up else []:
            directory.mkdir(exist_ok=True)
            write_summary(directory, Summary("failed" if self._fails else "finished", metrics={"val/f1": 0.5}))
        self.gives_up = self._fails
        return done


def _loop(directory: Path, group: dict[str, Any], conductor: Any) -> Any:
    """Carry a search out; its study."""
    settings, space = search_settings(group)
    study = open_study(directory, settings, space, "max", identity(space, "val/f1", "max", None, []))

    def job(name: str, own: Sequence[str]) -> JobRecord:
        return JobRecord(name, tuple(own), ())

    loop = Loop(study, directory, settings, conductor, SweepRecord(1), job, "val/f1")
    loop.run(distributions(space), 1)
    return study


def test_a_grid_ends_with_its_last_point(tmp_path: Path) -> None:
    grid = {"space": {"seed": {"choices": [1, 2]}, "a": {"low": 0, "high": 2}}, "sampler": "grid", "trials": 20}
    study = _loop(tmp_path, grid, _Proposals(tmp_path))
    tried = sorted((trial.params["seed"], trial.params["a"]) for trial in study.trials)
    assert tried == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert [job.name for job in read_sweep(tmp_path).jobs] == [f"trial000{number}" for number in range(6)]  # type: ignore[union-attr]
    assert read_sweep(tmp_path).to_come == 0  # type: ignore[union-attr]


def test_no_trial_is_proposed_after_too_many_failures(tmp_path: Path) -> None:
    conductor = _Proposals(tmp_path, fails=True)
    study = _loop(tmp_path, {"space": LR, "trials": 9}, conductor)
    assert [trial.state.name for trial in study.trials] == ["FAIL"]
    assert read_sweep(tmp_path).to_come == 8  # type: ignore[union-attr]
    _loop(tmp_path, {"space": LR, "trials": 9}, again := _Proposals(tmp_path))
    assert len(again.titles) == 8 and again.titles[0].startswith("[2/9] trial0001: optim.lr=")


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_trial_that_was_killed_while_it_was_proposed_gets_its_values(sampler: str, tmp_path: Path) -> None:
    group = {"space": {"seed": {"choices": [1, 2]}}, "sampler": sampler, "trials": 1}
    settings, space = search_settings(group)
    study = open_study(tmp_path, settings, space, "max", identity(space, "val/f1", "max", None, []))
    study._storage.create_new_trial(study._study_id)
    (trial,) = _loop(tmp_path, group, _Proposals(tmp_path)).trials
    assert trial.params["seed"] in (1, 2) and trial.state.name == "COMPLETE"


def test_the_best_trial_has_nothing_of_the_call() -> None:
    shared = ["sweep.max_failures=3", "logger=none", "experiment=paper/vgg16", "trainer.max_epochs=3"]
    content = OmegaConf.create(_experiment(shared, {"optim.lr": 0.01}))
    assert content == {
        "defaults": ["/experiment/paper/vgg16@_global_"],
        "trainer": {"max_epochs": 3},
        "optim": {"lr": 0.01},
    }


def test_a_search_is_no_single_run(phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert call("train", "search=default", "hydra.mode=RUN", f"data.root={phantom_root}", f"hydra.run.dir={run}") == 2
    assert "search= is a sweep: add -m" in capsys.readouterr().err


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
    found = read_search(directory)
    assert found is not None and found.log == {"optim.lr"} and len(found.complete) == 3


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
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "prune").touch()
    assert call("train", *fast, "trainer.max_epochs=1", "test=false", f"hydra.run.dir={whole}") == 0
    assert read_summary(whole).status == "finished"  # asked after its last epoch: nothing is left to prune


def test_importance_and_history_stand_in_the_report(tmp_path: Path) -> None:
    trials = [{"trial": i, "state": "complete", "value": i / 10, "params": {"optim.lr": 10.0**-i}} for i in range(4)]
    trials.append({"trial": 4, "state": "pruned", "value": None, "params": {"optim.lr": 0.5}})
    content = {"objective": "val/f1", "mode": "max", "folds": 3, "importance": {"optim.lr": 1.0}, "trials": trials}
    content["log"] = ["optim.lr"]
    (tmp_path / "search.json").write_text(json.dumps(content))
    found = read_search(tmp_path)
    assert found == Search(
        "val/f1",
        "max",
        3,
        tuple(Trial(t["trial"], t["state"], t["value"], t["params"]) for t in trials),  # type: ignore[arg-type]
        frozenset({"optim.lr"}),
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
