"""busi-compare on run directories made here; expected values worked out by hand, no torch."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from busi_lab.compare import compare, describe, main
from busi_lab.errors import UserError
from busi_lab.files import write_rows
from busi_lab.report.figures.png import sheet
from busi_lab.report.figures.quality import bars
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.joint import encoder_of
from busi_lab.report.results.probes import robustness
from busi_lab.report.results.published import PUBLISHED
from busi_lab.report.results.tables import Row, Table
from busi_lab.report.sections import ranking
from busi_lab.report.sections.section import Section
from busi_lab.report.writers.records import repeat_records
from busi_lab.summary import Summary, write_summary
from busi_lab.tracking.rebuild import Sent
from tests.report.said import ending, said
from tests.report.said import rows as shown

TABLES = ("md", "csv")
MATRIX = [[84, 3, 0], [0, 42, 0], [0, 0, 26]]  # the paper's Table IV, MobileNet


def make_run(
    folder: Path, experiment: str | None, value: float | None, *, test_digest: str = "cd34", **changes: Any
) -> None:
    """Write a finished classification run whose val/f1 is ``value``; ``changes`` replace summary fields."""
    metrics = {"val/f1": value, "val/loss": 0.5, "test/accuracy": 0.9, "test/precision": 0.8}
    metrics |= {"test/recall": 0.7, "test/f1": 0.75, "test/auroc": 0.95, "test/auroc_malignant": 0.93}
    fields: dict[str, Any] = {
        "status": "finished",
        "task": "classification",
        "experiment": experiment,
        "model": "mobilenetv1_100",
        "weights": "imagenet",
        "seed": 0,
        "split": {
            "protocol": "published",
            "seed": 0,
            "fold": None,
            "digest": "ab",
            "test_digest": test_digest,
        },
        "data": {"name": "busi", "digest": "dd", "train": 562, "val": 63, "test": 155},
        "parameters": 3_209_000,
        "epochs": 3,
        "best_epoch": 1,
        "objective": {"metric": "val/f1", "mode": "max"},
        "metrics": metrics | {"test/confusion_matrix": MATRIX},
        "seconds": {"fit": 812.4, "test": 3.0, "total": 820.0},
        "images_per_second": 240.1,
    }
    write_summary(folder, Summary(**(fields | changes)))
    write_config(folder)
    epochs = [{"epoch": e, "train/loss": 1 / (e + 1), "val/loss": 1.2 / (e + 1), "val/f1": e / 3} for e in range(3)]
    write_rows(folder / "metrics.csv", epochs, epochs[0])


def write_config(folder: Path, **changes: Any) -> None:
    """The resolved configuration of a run, as far as a comparison looks at it."""
    config: dict[str, Any] = {"seed": 0, "run_dir": str(folder), "trainer": {"max_epochs": 3}, "optim": {"lr": 1e-3}}
    (folder / "config.yaml").write_text(json.dumps(config | changes))


def order(table: Table) -> list[str | None]:
    return [row.run.summary.experiment for row in table.rows]


def notes(comparison: Analysis) -> tuple[str, ...]:
    """What a reader is warned of."""
    return said(comparison)["What this rests on"].notes


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_ranks_by_validation_not_by_test_and_shows_the_paper_beside(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "paper/vgg16", 0.80)
    make_run(runs / "b", "paper/mobilenet", 0.90)
    better_on_test = {"val/f1": 0.85, "test/accuracy": 0.99}
    make_run(runs / "c", "mine", None, metrics=better_on_test)
    (table,) = compare([runs], tmp_path / "made", formats=TABLES).tables
    assert order(table) == ["paper/mobilenet", "mine", "paper/vgg16"]
    assert [row.rank for row in table.rows] == [1, 2, 3]
    first, second, third = read_csv(tmp_path / "made")
    assert (first["run"], first["rank"], first["objective_value"]) == ("b", "1", "0.9")
    assert (first["test/accuracy"], first["paper/accuracy"], first["paper/recall"]) == ("0.9", "0.98", "0.99")
    assert (second["test/accuracy"], second["paper/accuracy"], second["test/f1"]) == ("0.99", "", "")
    assert third["paper/precision"] == "0.94"
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    figures = "0.900<br>paper 0.98 | 0.800<br>paper 0.98 | 0.700<br>paper 0.99 | 0.750<br>paper 0.98"
    assert f"| 1 | paper/mobilenet | 0.9000 | {figures} |" in markdown
    assert "| 2 | mine | 0.8500 | 0.990 | – | – | – |" in markdown  # noqa: RUF001
    assert markdown.index("\n> Research only. Not a medical device: ") < markdown.index("No run failed.")
    assert "3 runs for classification on busi under the published protocol: 562 training, 63 valida" in markdown
    assert "| ResNet50 | 0.854 | 0.832 | 0.9367 | 0.8793 |" in markdown


def test_ties_are_broken_by_experiment_and_missing_objectives_come_last(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "1", "nothing", float("nan"))
    make_run(runs / "2", "zebra", 0.5)
    make_run(runs / "3", "ant", 0.5)
    make_run(runs / "4", "zero", 0.0)
    assert json.loads((runs / "1/summary.json").read_text())["metrics"]["val/f1"] is None
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    (table,) = comparison.tables
    assert order(table) == ["ant", "zebra", "zero", "nothing"]
    assert [row.rank for row in table.rows] == [1, 1, 3, None]
    assert [row.label for row in table.level] == ["ant", "zebra"]
    assert "level with zebra and first by name alone" in ending(comparison, "What was found").sentences[0]
    last = read_csv(tmp_path / "made")[-1]
    assert (last["experiment"], last["rank"], last["objective_value"]) == ("nothing", "", "")


def test_lower_is_better_where_the_objective_says_so(runs: Path, tmp_path: Path) -> None:
    for name, loss in {"high": 0.9, "low": 0.1, "middle": 0.4}.items():
        metrics = {"val/loss": loss}
        make_run(runs / name, name, None, metrics=metrics, objective={"metric": "val/loss", "mode": "min"})
    (table,) = compare([runs], tmp_path / "made").tables
    assert order(table) == ["low", "middle", "high"]
    assert "val/loss (lower is better)" in (tmp_path / "made/table.md").read_text(encoding="utf-8")


def test_unlike_objectives_are_ranked_by_the_commoner_one_and_it_is_said(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.6)
    make_run(runs / "b", "b", 0.7)
    make_run(runs / "c", "c", 0.8, objective={"metric": "val/loss", "mode": "min"})
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    (table,) = comparison.tables
    assert (table.metric, table.mode, order(table)) == ("val/f1", "max", ["c", "b", "a"])
    assert any("different objectives" in note for note in notes(comparison))


def test_unlike_test_sets_tasks_and_data_get_tables_of_their_own(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.5)
    make_run(runs / "b", "b", 0.6, test_digest="other")
    make_run(runs / "c", "c", 0.7, data={"name": "phantom", "digest": "ee", "test": 12})
    make_run(runs / "d", "d", 0.8, task="multitask")
    fallback = {"protocol": "holdout", "seed": 3, "fold": None, "digest": "fall"}
    make_run(runs / "e", "e", 0.9, split=fallback)
    make_run(runs / "f", "f", 0.95, split=fallback)
    make_run(runs / "g", "a", 0.4, seed=1)
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    tables, titles = comparison.tables, list(said(comparison))
    assert [order(table) for table in tables] == [["f", "e"], ["a", "a"], ["b"], ["c"], ["d"]]
    assert [table.number for table in tables] == [1, 2, 3, 4, 5]
    assert "Table 1: classification on busi, holdout protocol, split seed 3, 155 test images (test set fall)" in titles
    assert tables[0].test_digest == "fall"
    assert [row.label for row in tables[1].rows] == ["a (seed 0)", "a (seed 1)"]
    assert "Table 4: classification on phantom, published protocol, 12 test images (test set cd34)" in titles
    assert [row["table"] for row in read_csv(tmp_path / "made")] == ["1", "1", "2", "2", "3", "4", "5"]


def test_labels_tell_namesakes_apart_by_the_least_that_does(runs: Path, tmp_path: Path) -> None:
    for name, changes in {
        "a": {"weights": "none"},
        "b": {"weights": "none", "seed": 1},
        "c": {"weights": str(runs / "w.safetensors")},
    }.items():
        make_run(runs / name, "x", 0.5, **changes)
        make_run(runs / f"{name}2", "y", 0.4)
    make_run(runs / "d", "z", 0.3)
    (table,) = compare([runs], tmp_path / "made", formats=TABLES).tables
    assert {row.folder: row.label for row in table.rows} == {
        "a": "x (none, seed 0)",
        "b": "x (none, seed 1)",
        "c": "x (w.safetensors, seed 0)",
        "a2": "y (a2)",
        "b2": "y (b2)",
        "c2": "y (c2)",
        "d": "z",
    }


def test_folds_are_named_and_the_published_protocol_carries_its_warning(runs: Path, tmp_path: Path) -> None:
    fold = {"protocol": "grouped_kfold", "seed": 0, "fold": 2, "digest": "k", "test_digest": "k2"}
    make_run(runs / "a", "paper/mobilenet", 0.5, split=fold)
    make_run(runs / "b", "paper/mobilenet", 0.5)
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    kfold, _ = comparison.tables
    assert kfold.protocol == "grouped_kfold protocol, fold 2, split seed 0"
    first, second = notes(comparison)
    assert first.startswith("Table 1: The paper's figures come from its own test set")
    assert second.startswith("Table 2: On BUSI the `published` protocol has near-copies")
    assert (tmp_path / "made/table.md").read_text(encoding="utf-8").count("near-copies") == 1


def test_segmentation_has_its_columns_and_the_papers_dice(runs: Path, tmp_path: Path) -> None:
    metrics = {"val/dice": 0.8, "test/dice": 0.7341, "test/iou": 0.6, "test/pixel_accuracy": 0.95}
    metrics |= {"test/false_positive_rate": 0.25, "test/hd95": 13.26, "test/missed_lesions": 0.01}
    objective = {"metric": "val/dice", "mode": "max"}
    make_run(runs / "a", "paper/unet", None, task="segmentation", metrics=metrics, objective=objective)
    compare([runs], tmp_path / "made")
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "| run | val/dice | dice | iou | pixel_accuracy | false_positive_rate | hd95 |" in markdown
    figures = "0.734<br>paper 0.8959 | 0.600 | 0.950<br>paper 0.9648 | 0.250 | 13.3"
    assert f"| paper/unet | 0.8000 | {figures} |" in markdown
    assert "missed_lesions" not in markdown
    assert read_csv(tmp_path / "made")[0]["test/missed_lesions"] == "0.01"
    assert sorted(path.name for path in (tmp_path / "made").glob("*.png")) == [
        "table1_curves.png",
        "table1_metrics.png",
    ]


def make_joint_and_pair(runs: Path, **changes: Any) -> None:
    """A joint MobileNet, and two runs of either task: MobileNets that are not the best, and the best."""
    for folder, task, model, value, figures, cost in (
        ("joint", "multitask", "mobilenet_unet", 0.8, {"accuracy": 0.9, "f1": 0.88, "dice": 0.7}, 6),
        ("cls_same", "classification", "mobilenetv1_100", 0.8, {"accuracy": 0.85, "f1": 0.9}, 3),
        ("cls_best", "classification", "vgg16", 0.9, {"accuracy": 0.95, "f1": 0.94}, 100),
        ("seg_same", "segmentation", "Unet-tu-mobilenetv1_100", 0.8, {"dice": 0.72}, 5),
        ("seg_best", "segmentation", "Unet-resnet34", 0.9, {"dice": 0.75}, 24),
    ):
        fields: dict[str, Any] = {
            "task": task,
            "model": model,
            "metrics": {"val/f1": value, **{f"test/{name}": figure for name, figure in figures.items()}},
            "parameters": cost * 1_000_000,
            "seconds": {"fit": 100.0 * cost},
            "inference_milliseconds": 1.5 * cost,
        }
        make_run(runs / folder, folder, None, **(fields | changes.get(folder, {})))
        write_config(runs / folder, model=ENCODERS[folder] | changes.get("models", {}).get(folder, {}))


ENCODERS: dict[str, dict[str, Any]] = {
    "joint": {"name": "mobilenet_unet"},
    "cls_same": {"name": "timm", "backbone": "mobilenetv1_100"},
    "cls_best": {"name": "timm", "backbone": "vgg16"},
    "seg_same": {"name": "smp", "arch": "Unet", "encoder": "tu-mobilenetv1_100"},
    "seg_best": {"name": "smp", "arch": "Unet", "encoder": "resnet34"},
}


def test_one_encoder_is_set_against_the_pair_with_encoders_of_its_kind(runs: Path, tmp_path: Path) -> None:
    make_joint_and_pair(runs)
    compare([runs], tmp_path / "made", formats=("md", "html"))
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    section = markdown[markdown.index("## One encoder or two") : markdown.index("## Published")]
    assert "with the same encoder (mobilenetv1_100, as their configurations say)" in section
    assert [line for line in section.splitlines() if line.startswith("| ")][2:] == [
        "| run | joint | cls_same | seg_same |  |  |",
        "| model | mobilenet_unet | mobilenetv1_100 | Unet-tu-mobilenetv1_100 |  |  |",
        "| accuracy | 0.900 | 0.850 | – | 0.850 | +0.050 |",  # noqa: RUF001
        "| macro F1 | 0.880 | 0.900 | – | 0.900 | -0.020 |",  # noqa: RUF001
        "| Dice | 0.700 | – | 0.720 | 0.720 | -0.020 |",  # noqa: RUF001
        "| parameters (M) | 6.00 | 3.00 | 5.00 | 8.00 | 0.75 times |",
        "| training time (s) | 600 | 300 | 500 | 800 | 0.75 times |",
        "| inference of a scan (ms) | 9.0 | 4.5 | 7.5 | 12.0 | 0.75 times |",
    ]
    assert "differ" not in section and "do not compare" not in section
    page = (tmp_path / "made/report.html").read_text(encoding="utf-8")
    assert ">One encoder or two</a>" in page
    assert 'data-value="0.75">0.75 times</td>' in page


def test_one_encoder_against_unlike_or_slower_pairs_says_so(runs: Path, tmp_path: Path) -> None:
    elsewhere = {"split": {"protocol": "published", "digest": "other", "test_digest": "cd34"}, "device": "cuda"}
    models = {"joint": {"name": "smp", "encoder": "resnet18"}}
    make_joint_and_pair(runs, models=models, cls_best={**elsewhere, "inference_milliseconds": None})
    compare([runs], tmp_path / "made", formats=("md",))
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "| run | joint | cls_best | seg_best |" in markdown  # no classifier has a ResNet
    assert "so encoders differ as well as tasks" in markdown
    assert "Their training or validation images differ." in markdown
    assert "their times do not compare" in markdown
    assert "| inference of a scan (ms) | 9.0 | – | 36.0 | – | – |" in markdown  # noqa: RUF001


@pytest.mark.parametrize(
    "missing",
    [
        {"joint": {"split": {"protocol": "published", "test_digest": "other"}}},
        {"joint": {"data": {"name": "busi", "digest": "other"}}},
        {"joint": {"metrics": {"test/dice": 0.9}}},  # no figure of validation, so no best run
        {"seg_same": {"status": "failed"}, "seg_best": {"status": "failed"}},
    ],
)
def test_one_encoder_is_compared_on_the_same_images_alone(missing: dict[str, Any], runs: Path, tmp_path: Path) -> None:
    make_joint_and_pair(runs, **missing)
    compare([runs], tmp_path / "made", formats=("md",))
    assert "One encoder or two" not in (tmp_path / "made/table.md").read_text(encoding="utf-8")


def test_encoders_are_those_of_the_configuration_and_nothing_is_claimed_of_unknown_ones(
    runs: Path, tmp_path: Path
) -> None:
    told: list[dict[str, str] | None] = [
        {"model.backbone": "vgg16"},
        {"model.encoder": "tu-mobilenetv1_100"},
        {"model.name": "mobilenet_unet"},
        {"model.name": "custom_cnn"},
        {},
        None,
    ]
    assert [encoder_of(each) for each in told] == ["vgg16", "mobilenetv1_100", "mobilenetv1_100", None, None, None]
    make_joint_and_pair(runs)
    (runs / "joint/config.yaml").unlink()
    section = ending(compare([runs], tmp_path / "made", formats=("csv",)), "One encoder or two")
    assert "do not say which encoders they have, so nothing is claimed of encoders" in section.sentences[1]


def test_failures_are_listed_with_their_reasons_and_stop_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(runs / "good", "good", 0.5)
    make_run(runs / "bad", "paper/vgg16", None, status="failed", error="loss is NaN\nin epoch 3", metrics={})
    make_run(runs / "silent", "silent", None, status="failed")
    make_run(runs / "listed", "listed", 0.5, metrics=[1])
    for name, content in {
        "cut": '{"schema": 1, "sta',
        "newer": '{"schema": 99, "status": "finished"}',
    }.items():
        (runs / name).mkdir()
        (runs / name / "summary.json").write_text(content)
    main([str(runs), "--format", "md,csv"])
    printed = capsys.readouterr().out
    lines = printed.strip().splitlines()
    told = {line.split()[0]: line for line in lines[lines.index("Runs without a result") :] if line}
    assert re.fullmatch(r"bad +paper/vgg16 +failed +loss is NaN in epoch 3", told["bad"])
    assert re.fullmatch(r"silent +silent +failed +no reason recorded \(status failed\)", told["silent"])
    assert re.match("cut +cut +unreadable +summary.json cannot be read", told["cut"])
    assert re.match("newer +newer +unreadable +summary.json has schema 99", told["newer"])
    assert re.match("listed +listed +unreadable +summary.json is not a busi-lab summary: metrics", told["listed"])
    assert lines[-1] == f"table.md, table.csv and repeats.csv are in {runs / 'comparison'}"
    markdown = (runs / "comparison/table.md").read_text(encoding="utf-8")
    assert "| bad | paper/vgg16 | failed | loss is NaN in epoch 3 |" in markdown
    assert str(runs) not in markdown
    states = {row["run"]: row["status"] for row in read_csv(runs / "comparison")}
    failed = {"bad": "failed", "silent": "failed", "listed": "unreadable", "cut": "unreadable"}
    assert states == {"good": "finished", "newer": "unreadable", **failed}


def test_begun_runs_are_listed_as_not_finished_and_hydras_and_wandbs_configs_are_no_runs(
    runs: Path, tmp_path: Path
) -> None:
    make_run(runs / "good", "good", 0.5)
    begun = ("good", "cut", "older", "fresh", "good/wandb/run/files", "wandb/run/files")
    for folder in (*begun, "good/.hydra", "cut/.hydra", "early/.hydra", "some/tool"):
        (runs / folder).mkdir(parents=True, exist_ok=True)
        (runs / folder / "config.yaml").touch()
        if folder in begun:
            (runs / folder / "split.json").touch()
    for checkpoint in ("cut/checkpoints/last.ckpt", "older/checkpoints/previous.ckpt"):
        (runs / checkpoint).parent.mkdir()
        (runs / checkpoint).touch()
    write_rows(runs / "cut/metrics.csv", [{"epoch": 0}, {"epoch": 1}], ["epoch"])
    failures = compare([runs], tmp_path / "made", formats=TABLES).failures
    assert [(failure.folder, failure.status) for failure in failures] == [
        ("cut", "not finished"),
        ("fresh", "not finished"),
        ("older", "not finished"),
    ]
    assert failures[2].reason.endswith("continue it with busi-train resume=older")
    assert failures[0].reason == "still running or cut off after 2 epochs; continue it with busi-train resume=cut"
    assert failures[1].reason.startswith("still running or cut off after 0 epochs; no checkpoint")
    assert read_csv(tmp_path / "made")[1]["status"] == "not finished"
    with pytest.raises(UserError, match=r"no run .* has finished; the first, cut: still running"):
        compare([runs / "cut"], tmp_path / "other")


def test_formats_are_what_is_written_and_nothing_of_an_earlier_comparison_stays(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(runs / "a", "a", 0.5)
    out = runs / "comparison"
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    main([str(runs)])
    assert {path.suffix for path in out.iterdir()} == {".html", ".md", ".csv", ".png"}
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last == f"the report is {out / 'report.html'}; table.md, table.csv, repeats.csv and plots are beside it"
    assert opened == []
    main([str(runs), "--format", "csv"])
    assert sorted(path.name for path in out.iterdir()) == ["repeats.csv", "table.csv"]
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"table.csv and repeats.csv are in {out}"
    main([str(runs), "--format", "html", "--open"])
    assert [path.name for path in out.iterdir()] == ["report.html"]
    assert opened == [(out / "report.html").resolve().as_uri()]
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"the report is {out / 'report.html'}"
    with pytest.raises(UserError, match="expected some of html,md,csv,png, found pdf"):
        compare([runs], out, ["pdf"])
    with pytest.raises(SystemExit) as ended:
        main([str(runs), "--open", "--format", "csv"])
    assert ended.value.code == 2
    assert "add html to --format" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["report.html"]


def test_prints_an_aligned_ranking(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(runs / "a", "paper/custom_cnn", 0.52)
    make_run(runs / "b", "a_rather_long_name", 0.61, weights=str(runs / "start.safetensors"))
    main([str(runs), "--format", "md,csv"])
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("rank"))
    assert lines[0] == "What was found"
    assert lines[head].split()[:3] == ["rank", "run", "val/f1"]
    assert lines[head + 1].split()[:4] == ["1", "a_rather_long_name", "0.6100", "0.900"]
    assert lines[head + 2].split()[:6] == ["2", "paper/custom_cnn", "0.5200", "0.900", "(paper", "0.54)"]
    assert len({line.index("0.900") for line in lines[head + 1 : head + 3]}) == 1
    cost = next(line for line in lines[head + 3 :] if line.startswith("a_rather_long_name"))
    assert cost.split()[-8:] == ["3", "2", "of", "3", "240.1", "812", "0", "start.safetensors", "b"][-8:]


@pytest.mark.parametrize("content", ["missing", "empty", "failed"])
def test_nothing_to_compare_is_one_line_and_exit_2(
    content: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content != "missing":
        runs.mkdir()
    if content == "failed":
        make_run(runs / "a", "a", None, status="failed", error="no memory")
    with pytest.raises(SystemExit) as ended:
        main([str(runs), "--out", str(tmp_path / "made")])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    expected = {"missing": "not a folder", "empty": "no run directory", "failed": "a: no memory"}[content]
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert expected in printed.err
    assert not (tmp_path / "made").exists()


def test_output_that_cannot_be_written_is_one_line_and_exit_2(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(runs / "a", "a", 0.5)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main([str(runs), "--out", str(tmp_path / "file/below")])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "--out" in printed
    with pytest.raises(UserError, match="cannot be written"):
        compare([runs], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_default_output_and_folders_relative_to_what_they_share(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(runs / "x/1", "a", 0.5)
    make_run(runs / "y", "b", 0.6)
    monkeypatch.chdir(tmp_path)
    main([str(runs / "x"), str(runs / "y"), str(runs / "y"), "--format", "md,csv"])
    assert [row["run"] for row in read_csv(tmp_path / "comparison")] == ["y", "x/1"]
    main([str(runs / "y"), "--format", "md,csv"])
    assert [row["run"] for row in read_csv(runs / "y/comparison")] == ["y"]


def test_comparing_again_gives_the_same_files_and_removes_only_stale_plots(runs: Path) -> None:
    make_run(runs / "a", "a", 0.5)
    make_run(runs / "b", "b", 0.5, test_digest="other")
    out = runs / "comparison"
    compare([runs], out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".png"}
    assert (out / "table2_metrics.png").exists()
    (out / "table2_notes.png").write_bytes(b"mine")
    compare([runs], out)
    assert {name: (out / name).read_bytes() for name in before} == before
    (runs / "b/summary.json").unlink()
    compare([runs], out)
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"table1_metrics.png", "table1_confusion.png", "table1_curves.png", "table2_notes.png"}
    assert "](table1_confusion.png)" in (out / "table.md").read_text(encoding="utf-8")


def test_plots_are_readable_pictures_even_of_odd_runs(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a|long_$name$_that_goes_on_" + "x" * 60, 0.5)
    make_run(runs / "b", None, None, metrics={"test/confusion_matrix": [[1, 2]], "test/f1": None})
    make_run(runs / "c", "c", 0.5, best_epoch=None, metrics={"test/accuracy": 0.4})
    (runs / "b/metrics.csv").write_bytes(b"epoch,val/loss\n0,\xff\n")
    (runs / "c/metrics.csv").write_text("epoch,train/loss,val/loss,val/f1\n0,5e6,,nan\n1,high\n")
    (table,) = compare([runs], tmp_path).tables
    for kind in ("metrics", "confusion", "curves"):
        with Image.open(tmp_path / f"table1_{kind}.png") as picture:
            assert picture.format == "PNG"
            assert 800 <= picture.width <= 2000
            assert 250 <= picture.height <= 1500
            picture.load()
            assert len(set(picture.convert("L").tobytes())) > 20
    held = {row.folder: row for row in table.rows}
    assert held["a"].confusion() == MATRIX
    epochs, values = held["a"].curve("val/f1")
    assert epochs == [0, 1, 2]
    assert values == pytest.approx([0, 1 / 3, 2 / 3], abs=1e-6)
    assert held["b"].confusion() is None
    assert held["b"].curve("val/loss") == ([], [])
    assert held["c"].curve("train/loss") == ([0], [5e6])
    assert "a\\|long_$name$" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_hundred_runs_keep_their_order(runs: Path, tmp_path: Path) -> None:
    for i in range(100):
        make_run(runs / f"run{i}", f"run{i}", (i * 37 % 100) / 100)
    (table,) = compare([runs], tmp_path / "made", formats=TABLES).tables
    values = [row.objective for row in table.rows]
    assert values == [(99 - i) / 100 for i in range(100)]
    assert len(read_csv(tmp_path / "made")) == 100
    group = bars(table, 20)
    figure = sheet(group)
    assert len(figure.axes) == len(group.panels) == 4  # a metric each
    assert "the best 20 of 100 runs by val/f1" in figure.get_suptitle()


def test_many_tables_draw_fewer_runs_and_say_so(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(10):
        make_run(runs / f"{i}", "a", 0.5, seed=i, test_digest="one")
    monkeypatch.setattr(ranking, "TABLES_DRAWN", 2)
    compare([runs], tmp_path, formats=("md", "png"))
    with Image.open(tmp_path / "table1_confusion.png") as picture:
        eight = picture.height
    for i in range(4):
        make_run(runs / f"other{i}", "a", 0.5, test_digest=f"other{i}")
    monkeypatch.setattr(ranking, "PANELS_SHOWN", 4)
    compare([runs], tmp_path, formats=("md", "png"))
    with Image.open(tmp_path / "table1_confusion.png") as picture:
        assert picture.height < eight
    drawn = {path.name.split("_")[0] for path in tmp_path.glob("*.png")}
    assert drawn == {"table1", "table2"}
    note = "Picture files are drawn for the first 2 tables; compare fewer runs to have all."
    assert (tmp_path / "table.md").read_text(encoding="utf-8").count(note) == 1


@pytest.mark.parametrize("given", [[], ["runs", "--unknown"], ["runs", "--out"]])
def test_a_wrong_command_line_is_one_line_and_exit_2(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert "busi-compare --help" in printed


def test_a_report_in_wandb_is_named_after_the_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(runs / "a", "a", 0.5)
    sent: list[Any] = []
    monkeypatch.setattr("busi_lab.compare.publish_report", lambda *arguments: sent.append(arguments))
    monkeypatch.setattr("busi_lab.tracking.rebuild.send_runs", lambda folders, project: Sent("disabled"))
    monkeypatch.chdir(runs)
    main([".", "--format", "csv", "--wandb", "project"])
    assert sent[0][1:] == (Path("comparison"), "report-runs", {"WANDB_MODE": "disabled"})


def test_published_figures_agree_with_the_papers_confusion_matrix() -> None:
    correct = sum(MATRIX[i][i] for i in range(3))
    recall = sum(MATRIX[i][i] / sum(MATRIX[i]) for i in range(3)) / 3
    figures = PUBLISHED["paper/mobilenet"].metrics
    assert figures["accuracy"] == round(correct / 155, 2) == 0.98
    assert figures["recall"] == round(recall, 2) == 0.99
    assert PUBLISHED["paper/vgg16_frozen"] is PUBLISHED["paper/vgg16"]
    assert PUBLISHED["paper/unet"].metrics == {"dice": 0.8959, "pixel_accuracy": 0.9648}
    quoted = [result.quoted for result in PUBLISHED.values() if result.quoted]
    assert [work.metrics.get("f1") for work in quoted] == [None, 0.7939, 0.769, 0.8793, 0.8731]


def test_rows_tell_missing_from_zero(runs: Path, tmp_path: Path) -> None:
    metrics = {"val/f1": 0.0, "test/f1": 0.0, "test/accuracy": None, "test/recall": True}
    make_run(runs / "a", "a", None, metrics=metrics)
    row: Row = compare([runs], tmp_path, formats=TABLES).tables[0].rows[0]
    assert [row.metric(f"test/{name}") for name in ("f1", "accuracy", "recall", "dice")] == [
        0.0,
        None,
        None,
        None,
    ]
    assert row.rank == 1


def test_comparing_loads_neither_torch_nor_for_tables_matplotlib(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "paper/mobilenet", 0.5)
    code = (
        "import sys; from pathlib import Path; from busi_lab.compare import compare\n"
        "compare([Path(sys.argv[1])], Path(sys.argv[2]), formats=('md', 'csv'))\n"
        "assert 'matplotlib' not in sys.modules\n"
        "compare([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
        "assert not {'torch', 'lightning', 'wandb', 'pandas', 'timm', 'hydra'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, runs, tmp_path / "made"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made/table1_curves.png").stat().st_size > 5000


CLASSES = ("benign", "malignant", "normal")


def make_predictions(folder: Path, images: range, wrong: Collection[int] = (), right: float = 0.8) -> None:
    """Images by number, classes in turn, two of a group; those of ``wrong`` are called the next class."""
    rows = []
    for i in images:
        called = CLASSES[(i + (i in wrong)) % 3]
        shares = {f"p_{name}": right if name == called else (1 - right) / 2 for name in CLASSES}
        rows.append(
            {"image": f"{i:03}", "label": CLASSES[i % 3], "prediction": called, **shares, "group": f"g{i // 2}"}
        )
    save_predictions(folder, rows)


def save_predictions(folder: Path, rows: list[dict[str, Any]]) -> None:
    """predictions.csv, and their number in the summary."""
    write_rows(folder / "predictions.csv", rows, rows[0])
    summary = json.loads((folder / "summary.json").read_text())
    summary["data"]["test"] = len(rows)
    (folder / "summary.json").write_text(json.dumps(summary))


def make_folds(runs: Path, name: str = "a", folds: int = 3, seeds: int = 2, wrong: int = 2, **changes: Any) -> None:
    """Folds of 30 images of which ``wrong`` are wrong in seed 0, twice as many in others; the first of each fold."""
    for seed in range(seeds):
        for fold in range(folds):
            split = {"protocol": "grouped_kfold", "seed": 0, "fold": fold, "folds": 3, "digest": f"s{fold}"}
            split |= {"test_digest": f"t{fold}", "leaked": 0}
            count = wrong * (1 + seed)
            metrics = {"val/f1": 0.5, "test/accuracy": 1 - count / 30}
            data = {"name": "busi", "digest": "dd", "test": 30}
            folder = runs / f"{name}_{fold}_{seed}"
            make_run(folder, name, None, seed=seed, split=split, metrics=metrics, data=data, **changes)
            start = 30 * fold
            make_predictions(folder, range(start, start + 30), set(range(start, start + count)), 0.9 - 0.2 * seed)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_folds_and_seeds_are_pooled_and_spread(runs: Path, tmp_path: Path) -> None:
    make_folds(runs)
    comparison = compare([runs], tmp_path / "made")
    assert [path.name for path in (tmp_path / "made").glob("*.png")] == ["findings1.png"]  # no pictures of single folds
    (line,) = read_table(tmp_path / "made/repeats.csv")
    assert [line[name] for name in ("runs", "seeds", "folds", "expected_folds")] == ["6", "2", "3", "3"]
    assert [line[name] for name in ("images", "groups", "leaked")] == ["90", "45", "0 of 90 (0 %)"]
    # three runs with 2 and three with 4 of 30 wrong; as an ensemble the surer seed 0 outvotes seed 1 where they differ
    accuracies = [1 - 2 / 30, 1 - 4 / 30]
    assert float(line["accuracy/mean"]) == pytest.approx(sum(accuracies) / 2)
    assert float(line["accuracy/low95"]) < sum(accuracies) / 2 < float(line["accuracy/high95"])
    assert float(line["accuracy/ensemble"]) == pytest.approx(1 - 6 / 90)
    assert float(line["accuracy/sd_folds"]) == pytest.approx(0)  # the folds of a seed are alike, the seeds are not
    assert float(line["accuracy/sd_seeds"]) == pytest.approx((2 * (1 / 30) ** 2) ** 0.5)
    assert line["accuracy/sd_splits"] == ""
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "| a | 6<br>3 of 3 folds<br>2 seeds | 90<br>45 groups | 0<br>of 90 (0 %) | 0.900<br>" in markdown
    assert "<br>± 0.000 over folds<br>± 0.047 over seeds<br>ensemble 0.933 |" in markdown
    page = (tmp_path / "made/report.html").read_text(encoding="utf-8")
    assert "Folds together: classification on busi, grouped_kfold protocol" in page
    assert "These are test images of one fold, Table" in page
    assert len(comparison.fold_tables) == 3


def test_calibration_over_folds_is_of_single_models(runs: Path, tmp_path: Path) -> None:
    make_folds(runs)
    comparison = compare([runs], tmp_path / "made", formats=("csv",))
    (line,) = shown(said(comparison)["Calibration"].grids[0])
    # seed 0 says 0.9 and has 28 of 30 right; averaged with seed 1, which says 0.7, it would be 0.8 and less
    assert float(line[2]) == pytest.approx(28 / 30 - 0.9, abs=6e-4)


def test_a_missing_fold_is_said(runs: Path, tmp_path: Path) -> None:
    make_folds(runs, folds=2)
    compare([runs], tmp_path / "made", formats=TABLES)
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "a (split seed 0, seed 1) has 2 of 3 folds and lacks fold 2." in markdown
    assert read_table(tmp_path / "made/repeats.csv")[0]["folds"] == "2"


def test_folds_that_share_images_are_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folds(runs, seeds=1)
    make_predictions(runs / "a_1_0", range(25, 55))
    with pytest.raises(SystemExit) as ended:
        main([str(runs), "--out", str(tmp_path / "made")])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "a_0_0 and a_1_0 are folds 0 and 1 of a with the same seeds and share 5 test images" in printed
    assert not (tmp_path / "made").exists()
    make_folds(runs, seeds=1)
    summary = json.loads((runs / "a_1_0/summary.json").read_text())
    summary["split"]["test_digest"] = "other"
    (runs / "again").mkdir()
    (runs / "again/summary.json").write_text(json.dumps(summary))
    write_config(runs / "again")
    with pytest.raises(UserError, match="are both fold 1 of a with the same seeds"):
        compare([runs], tmp_path / "made", formats=TABLES)


def test_repeats_can_be_required(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folds(runs)
    main([str(runs), "--out", str(tmp_path / "made"), "--format", "csv", "--require-repeats"])
    make_run(runs / "single", "lonely", 0.5)
    with pytest.raises(SystemExit) as ended:
        main([str(runs), "--out", str(tmp_path / "made"), "--format", "csv", "--require-repeats"])
    assert ended.value.code == 2
    assert "--require-repeats: one run alone of lonely (published)" in capsys.readouterr().err


def test_runs_with_equal_seeds_are_no_repeats(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.4)
    make_run(runs / "b", "a", 0.5)
    make_run(runs / "c", "a", 0.5, seed=1)
    for name, wrong in {"a": 9, "b": 0, "c": 0}.items():
        make_predictions(runs / name, range(30), set(range(wrong)))
    compare([runs], tmp_path / "made", formats=TABLES)
    (line,) = read_table(tmp_path / "made/repeats.csv")
    assert (line["runs"], line["accuracy/mean"]) == ("2", "1")
    assert "of such runs the best by validation stands" in (tmp_path / "made/table.md").read_text(encoding="utf-8")


def test_models_are_tested_in_pairs_on_the_same_cases(runs: Path, tmp_path: Path) -> None:
    for name, wrong in {"good": set(range(2)), "near": set(range(3)), "bad": set(range(20))}.items():
        make_run(runs / name, name, 0.5)
        make_predictions(runs / name, range(60), wrong)
    compare([runs], tmp_path / "made", formats=(*TABLES, "html"))
    found = {(line["first"], line["second"]): line for line in read_table(tmp_path / "made/pairs.csv")}
    assert len(found) == 3
    # 18 and 17 images that one alone has right, in 9 groups all on one side; and a single one
    p = {("bad", "good"): 2 / 2**9, ("bad", "near"): 2 / 2**9, ("good", "near"): 1.0}
    assert {pair: float(line["p"]) for pair, line in found.items()} == pytest.approx(p, rel=1e-5)
    assert float(found["bad", "good"]["p_holm"]) == pytest.approx(3 * 2 / 2**9)
    assert {line["groups"] for line in found.values()} == {"30"}
    assert [found[pair]["verdict"] for pair in p] == [
        "bad is worse than good",
        "bad is worse than near",
        "good and near do not differ significantly",
    ]
    assert "is below 0.05: 2 of 3 pairs." in (tmp_path / "made/table.md").read_text(encoding="utf-8")


def test_few_groups_claim_nothing_and_cost_the_others_nothing(runs: Path, tmp_path: Path) -> None:
    for name, wrong in {"good": set(), "bad": set(range(38))}.items():
        make_run(runs / name, name, 0.5)
        make_predictions(runs / name, range(38), wrong)
    compare([runs], tmp_path / "made", formats=TABLES)
    (line,) = read_table(tmp_path / "made/pairs.csv")
    assert (line["groups"], line["p"], line["p_holm"]) == ("19", "", "")
    assert line["verdict"] == "bad and good have 19 groups, too few (below 20) to tell them apart"
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "is below 0.05: 0 of 1 pair." in markdown and "One pair has fewer than 20 groups: nothing is" in markdown
    assert "so that the interval cannot be trusted (accuracy 19," in markdown


def test_five_seeds_are_no_ensemble_against_a_single_run(runs: Path, tmp_path: Path) -> None:
    """Each seed errs on other images: an ensemble would be right everywhere and win, a typical run would not."""
    for seed in range(5):
        make_run(runs / f"many{seed}", "many", 0.5, seed=seed)
        make_predictions(runs / f"many{seed}", range(100), set(range(20 * seed, 20 * seed + 20)))
    make_run(runs / "one", "one", 0.5)
    make_predictions(runs / "one", range(100), set(range(0, 100, 5)))
    compare([runs], tmp_path / "made", formats=TABLES)
    (line,) = read_table(tmp_path / "made/pairs.csv")
    assert (float(line["first_value"]), float(line["second_value"])) == pytest.approx((0.8, 0.8))
    assert line["verdict"] == "many and one do not differ significantly"
    many, one = read_table(tmp_path / "made/repeats.csv")
    assert (float(many["accuracy/mean"]), float(many["accuracy/ensemble"])) == pytest.approx((0.8, 1.0))
    assert one["accuracy/ensemble"] == ""
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "several seeds are a typical run here, not an ensemble" in markdown
    assert "so that the test speaks of these runs, not of their recipe: one." in markdown


def test_runs_with_other_settings_are_no_repeats_and_what_differs_is_shown(runs: Path, tmp_path: Path) -> None:
    for rate in (1e-4, 3e-2):
        for seed in (0, 1):
            folder = runs / f"{rate}_{seed}"
            make_run(folder, "a", 0.5, seed=seed)
            make_predictions(folder, range(60), set(range(4 if rate == 1e-4 else 40)))
            write_config(
                folder,
                seed=seed,
                optim={"lr": rate},
                data={"root": str(folder), "num_workers": seed, "cache_dir": str(folder)},
                callbacks={"best": {"_target_": "busi_lab.x.Best", "dirpath": str(folder)}},
                logger={"csv": {"save_dir": str(folder)}},
            )
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    low, high = sorted(read_table(tmp_path / "made/repeats.csv"), key=lambda line: line["settings"])
    assert (low["settings"], high["settings"]) == ("optim.lr=0.0001", "optim.lr=0.03")
    assert (low["runs"], low["seeds"], float(low["accuracy/mean"])) == ("2", "2", pytest.approx(56 / 60))
    labels = {row.label for row in comparison.tables[0].rows}
    assert labels == {f"a (optim.lr={rate}, seed {seed})" for rate in ("0.0001", "0.03") for seed in (0, 1)}
    (pair,) = read_table(tmp_path / "made/pairs.csv")
    assert pair["verdict"] == "a (optim.lr=0.0001) is better than a (optim.lr=0.03)"
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "What differs between the configurations" in markdown
    assert "| a (optim.lr=0.03) | optim.lr=0.03 |" in markdown


def test_configurations_of_older_versions_have_todays_defaults(runs: Path, tmp_path: Path) -> None:
    for seed, optim in enumerate(({"lr": 1e-3}, {"lr": 1e-3, "weight_decay": 0.0, "name": "adam"})):
        make_run(runs / f"{seed}", "a", 0.5, seed=seed)
        write_config(runs / f"{seed}", optim=optim, task={"_target_": ("busi_lab.tasks.X", "busi_lab.x.X")[seed]})
    make_run(runs / "2", "a", 0.5, seed=2)
    records = repeat_records(compare([runs], tmp_path / "made", formats=TABLES))
    assert sorted(record["runs"] for record in records) == [1, 2]  # what cannot be read is not taken for equal


def test_folds_are_known_from_the_configuration_and_other_numbers_are_no_repeats(runs: Path, tmp_path: Path) -> None:
    make_folds(runs, folds=3, seeds=1)
    for fold in range(3):
        path = runs / f"a_{fold}_0/summary.json"
        summary = json.loads(path.read_text())
        del summary["split"]["folds"]
        path.write_text(json.dumps(summary))
        write_config(path.parent, split={"folds": 5, "fold": fold})
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    (record,) = repeat_records(comparison)
    assert (record["folds"], record["expected_folds"]) == (3, 5)
    assert "a has 3 of 5 folds and lacks folds 3, 4." in (tmp_path / "made/table.md").read_text(encoding="utf-8")


def test_scores_of_different_folds_are_never_ranked_together(runs: Path, tmp_path: Path) -> None:
    """Each fold orders its images rightly, on a scale of its own; pooled, the AUROC would be less."""
    make_folds(runs, seeds=1)
    for fold in range(3):
        rows = read_table(runs / f"a_{fold}_0/predictions.csv")
        for row in rows:
            p = (0.05, 0.35, 0.65)[fold] + (0.2 if row["label"] == "malignant" else 0.1)
            row |= {"p_malignant": f"{p}", "p_benign": f"{1 - p}", "p_normal": "0"}
        write_rows(runs / f"a_{fold}_0/predictions.csv", rows, rows[0])
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    (record,) = repeat_records(comparison)
    assert record["auroc_malignant/mean"] == 1
    (line,) = shown(said(comparison)["Malignant against the rest"].grids[0])
    assert line[3] == "1.000"


def test_what_few_runs_define_is_said_and_what_none_defines_is_not_zero(runs: Path, tmp_path: Path) -> None:
    make_folds(runs, seeds=1)
    path = runs / "a_2_0/predictions.csv"
    save_predictions(path.parent, [row for row in read_table(path) if row["label"] != "normal"])
    make_run(runs / "m", "malignant_only", 0.5, metrics={"val/f1": 0.5, "test/auroc": 0.0, "test/accuracy": 1.0})
    make_predictions(runs / "m", range(200, 290))
    rows = [row for row in read_table(runs / "m/predictions.csv") if row["label"] == "malignant"]
    save_predictions(runs / "m", rows)
    records = repeat_records(compare([runs], tmp_path / "made", formats=TABLES))
    folds, alone = sorted(records, key=lambda record: -record["runs"])
    # where a fold lacks a class, the average over those that are there is that of all folds: none stands for some
    assert "f1/mean" not in folds and folds["f1_present/runs"] == folds["accuracy/runs"] == 3
    assert "auroc/mean" not in alone and "auroc_malignant/mean" not in alone
    old = runs / "old"
    make_run(old, "unet", 0.5, task="segmentation", metrics={"val/f1": 0.5, "test/dice": 0.5})
    make_run(runs / "new", "unet", 0.5, task="segmentation", seed=1, metrics={"val/f1": 0.5, "test/dice": 0.5})
    for folder, name in ((old, "hd95"), (runs / "new", "hd95_pixels")):
        masks = {"dice": 0.5, "iou": 0.3, "lesion_pixels": 9, "predicted_pixels": 9, "pixels": 99, name: 4}
        rows = [{"image": f"{i}", "label": "benign", "group": f"{i}", **masks} for i in range(30)]
        save_predictions(folder, rows)
    compare([runs], tmp_path / "made", formats=TABLES)
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    for name in ("hd95", "hd95_pixels"):
        assert f"{name} of unet is the mean over 1 of 2 runs: the others do not define it." in markdown
    (unet,) = [line for line in read_table(tmp_path / "made/repeats.csv") if line["experiment"] == "unet"]
    assert not [name for name in unet if name.endswith("/ensemble") and unet[name]]  # masks have none


def test_damaged_predictions_cost_all_claims_and_are_named(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folds(runs, seeds=1)
    make_folds(runs, "b", seeds=1, wrong=25)
    (line,) = read_table(compared(runs, tmp_path / "made") / "pairs.csv")
    assert line["verdict"] == "a is better than b"
    path = runs / "b_1_0/predictions.csv"
    content = path.read_text().splitlines(keepends=True)
    for damaged in ("".join(content[:-1]), "".join(content[:20])):  # each line that is left can be read
        path.write_text(damaged)
        out = compared(runs, tmp_path / "made")
        assert not (out / "pairs.csv").exists()
        markdown = (out / "table.md").read_text(encoding="utf-8")
        words = "b has readable predictions of 2 of 3 runs and is not tested: predictions.csv is missing or damaged in"
        assert f"{words} b_1_0." in markdown
        assert "predictions.csv is damaged, so nothing is made of it: b." in markdown
    make_folds(runs, "c", seeds=1, wrong=0)
    assert "so nothing is claimed of: b." in (compared(runs, tmp_path / "made") / "table.md").read_text(
        encoding="utf-8"
    )


def compared(runs: Path, out: Path) -> Path:
    """The folder of a comparison."""
    compare([runs], out, formats=TABLES)
    return out


def test_runs_without_a_configuration_are_no_repeats(runs: Path, tmp_path: Path) -> None:
    for seed in range(2):
        make_run(runs / f"{seed}", "a", 0.5, seed=seed)
        (runs / f"{seed}/config.yaml").unlink()
    records = repeat_records(compare([runs], tmp_path / "made", formats=TABLES))
    assert [record["runs"] for record in records] == [1, 1]


def test_experiments_never_share_a_label(runs: Path, tmp_path: Path) -> None:
    for name, share in {"a": 0.1, "b": 0.2}.items():
        make_run(runs / name, "x", 0.5)
        make_predictions(runs / name, range(60), set(range(30 if name == "a" else 0)))
        write_config(runs / name, split={"val_fraction": share})
    for name in ("c", "d"):
        make_run(runs / name, "y", 0.5)
        make_predictions(runs / name, range(60))
    (runs / "d/config.yaml").unlink()
    compare([runs], tmp_path / "made", formats=TABLES)
    names = {name for line in read_table(tmp_path / "made/pairs.csv") for name in (line["first"], line["second"])}
    assert names == {
        *("x (split.val_fraction=0.1)", "x (split.val_fraction=0.2)"),
        *("y", "y (configuration unknown)"),
    }


def test_groups_meet_in_common_images_and_names(runs: Path, tmp_path: Path) -> None:
    """One patient for the second model is two groups for the first: the images of both go together."""
    for name in ("a", "b"):
        make_run(runs / name, name, 0.5)
        make_predictions(runs / name, range(80), set(range(40)) if name == "a" else set())
    rows = read_table(runs / "b/predictions.csv")
    write_rows(
        runs / "b/predictions.csv", [{**row, "group": f"p{i // 4}"} for i, row in enumerate(rows)], list(rows[0])
    )
    compare([runs], tmp_path / "made", formats=TABLES)
    assert read_table(tmp_path / "made/pairs.csv")[0]["groups"] == "20"


def test_protocols_stand_side_by_side_with_their_leaks(runs: Path, tmp_path: Path) -> None:
    make_folds(runs, seeds=1, wrong=10)
    split = {"protocol": "published", "seed": 0, "fold": None, "digest": "p", "test_digest": "p", "leaked": 9}
    make_run(runs / "p", "a", 0.5, split=split, data={"name": "busi", "digest": "dd", "test": 60})
    make_predictions(runs / "p", range(200, 260))
    comparison = compare([runs], tmp_path / "made", formats=(*TABLES, "html"))
    block = ending(comparison, "a under 2 protocols")
    assert block.sentences[0].startswith("Compared is a (mobilenetv1_100, weights imagenet) for classification on busi")
    assert "grouped_kfold with 90 test images over 3 of 3 folds, leaked 0 of 90 (0 %)" in block.sentences[1]
    assert "published with 60 test images, leaked 9 of 60 (15 %)" in block.sentences[1]
    assert "accuracy is higher under published than under grouped_kfold (+0.333, 95 % +0." in block.sentences[2]
    assert block.sentences[3].endswith("independent and resampled apart: published and grouped_kfold.")
    (pair,) = read_table(tmp_path / "made/pairs.csv")
    assert (pair["protocol"], pair["second_protocol"]) == ("published", "grouped_kfold")
    assert pair["verdict"] == "published is higher than grouped_kfold"
    make_predictions(runs / "p", range(60))
    block = ending(compare([runs], tmp_path / "made", formats=("csv",)), "a under 2 protocols")
    assert block.sentences[3].endswith("resampled together: published and grouped_kfold (60 images).")
    make_predictions(runs / "p", range(200, 260), set(range(200, 220)))
    block = ending(compare([runs], tmp_path / "made", formats=("csv",)), "a under 2 protocols")
    assert (
        "differences: none; no significant difference: published and grouped_kfold in accuracy (+0.000)."
        in block.sentences[2]
    )
    make_predictions(runs / "p", range(200, 230))
    block = ending(compare([runs], tmp_path / "made", formats=("csv",)), "a under 2 protocols")
    few = "not tested: published and grouped_kfold in accuracy, with 15 groups where 20 are needed."
    assert block.sentences[2].endswith(few)


def test_the_measured_leak_replaces_the_fixed_warning(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = {"protocol": "published", "seed": 0, "fold": None, "digest": "ab", "test_digest": "cd34", "leaked": 43}
    make_run(runs / "a", "a", 0.5, split=split)
    main([str(runs), "--format", "md,csv"])
    printed = capsys.readouterr().out
    assert "leaked test images 43 of 155 (28 %)." in printed
    assert "Of the test images 43 of 155 (28 %) have a near-copy or the same patient in training" in printed
    assert "about 28 %" not in printed
    assert read_csv(runs / "comparison")[0]["leaked_test_images"] == "43"
    make_run(runs / "a", "a", 0.5, split={**split, "leaked": 0})
    main([str(runs), "--format", "md"])
    printed = capsys.readouterr().out
    assert "leaked test images 0 of 155 (0 %)." in printed and "near-copy" not in printed
    make_run(runs / "a", "a", 0.5, split={**split, "leaked": None})
    main([str(runs), "--format", "md"])
    printed = capsys.readouterr().out
    assert "leaked test images not recorded" in printed and "about 28 %" in printed


# ------------------------------------------------------------------------------------------- evaluations

OWN = {"protocol": "published", "seed": 0, "fold": None, "digest": "ab", "test_digest": "cd34", "leaked": 2}


def make_evaluation(folder: Path, run: Path, images: range, wrong: Collection[int] = (), **changes: Any) -> None:
    """An evaluation of a run on other data; by default of ``images`` as :func:`make_predictions`."""
    split = {"protocol": "all", "seed": 0, "fold": None, "digest": "x", "test_digest": "xt", "leaked": 1}
    data = {"name": "labels", "digest": "ee", "train": 562, "val": 63, "test": len(images)}
    origin = {"directory": str(run.resolve()), "data": "busi", "data_digest": "dd", "split": OWN, "test": 30}
    fields = {"split": split, "data": data, "source": origin | {"metrics": {"test/accuracy": 0.9}}}
    make_run(folder, "a", 0.5, **(fields | changes))
    (folder / "metrics.csv").unlink()
    make_predictions(folder, images, wrong)
    if (run / "predictions.csv").exists():
        (folder / "source_predictions.csv").write_bytes((run / "predictions.csv").read_bytes())


KINDS = ("against its own test images", "strata", "shortcuts", "explanations", ")")


def told_of(comparison: Analysis) -> dict[str, Section]:
    """The sections of evaluations by the last part of their titles."""
    found = {title: part for title, part in said(comparison).items() if ": " in title and title.endswith(KINDS)}
    return {title.rpartition(": ")[2]: part for title, part in found.items() if not title.startswith("Table")}


def evaluated(runs: Path, out: Path) -> dict[str, Section]:
    """As :func:`told_of`, of a comparison."""
    return told_of(compare([runs], out, formats=TABLES))


def lines_of(section: Section) -> dict[str, list[str]]:
    """What the table of a section shows, by the first cell of each line."""
    return {line[0]: line[1:] for line in shown(section.grids[0])}


def test_the_drop_on_other_data_by_hand(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_predictions(runs / "a", range(60), set(range(6)))  # 54 of 60
    make_evaluation(runs / "e", runs / "a", range(60), set(range(30)))  # 30 of 60, other images of the same names
    comparison = compare([runs], tmp_path / "made")
    assert [(table.dataset, order(table)) for table in comparison.tables] == [("busi", ["a"]), ("labels", ["a"])]
    (block,) = told_of(comparison).values()
    assert block.title == "a on labels: against its own test images"
    assert (
        "Trained on busi under the published protocol, tested there on 60 images and here on 60 of"
        in block.sentences[0]
    )
    assert "of which at least 1 of 60 (2 %) has a near-copy among" in block.sentences[0]
    own, here, gap = next(line for line in block.grids[0].lines if line[0].text == "accuracy")[1:]
    assert (own.text, here.text, gap.text) == ("0.900", "0.500", "-0.400")
    low, high = (float(value) for value in gap.second[0].split(" to "))
    # 30 groups of two on either side: the standard error of the difference of two means of 30, Student's t of 30
    half = 2.045 * (30 / 29 * (0.09 / 30 + 0.25 / 30)) ** 0.5
    assert (low, high) == pytest.approx((-0.4 - half, -0.4 + half), abs=0.03)
    assert "Accuracy is lower here by 0.400 (-0.400, 95 % -0." in block.sentences[-2]
    assert "Of different datasets, the two sets of images are resampled apart" in block.sentences[-1]
    words = describe(comparison, tmp_path / "made")
    assert block.title in words and "-0.400" in words
    assert "## a on labels: against its own test images" in (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "a on labels: against its own test images" in (tmp_path / "made/report.html").read_text(encoding="utf-8")


def test_masks_without_labels_are_compared_whole(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.5, split=OWN, task="segmentation")
    rows = [
        {"image": f"{i}", "label": "benign" if i < 60 else "normal", "group": f"{i}", "dice": 0.8 if i < 60 else ""}
        | {"iou": 0.7, "lesion_pixels": 100 if i < 60 else 0, "predicted_pixels": 100, "pixels": 900}
        for i in range(90)
    ]
    save_predictions(runs / "a", rows)
    make_evaluation(runs / "e", runs / "a", range(90), task="segmentation")
    save_predictions(runs / "e", [{**row, "label": ""} for row in rows])
    block = evaluated(runs, tmp_path / "made")["against its own test images"]
    assert not any("normal scans" in sentence or "auroc" in sentence for sentence in block.sentences)
    lines = lines_of(block)
    assert lines["dice_pooled"][0] == lines["dice_pooled"][1] and lines["dice_pooled"][2] == "+0.000"


def test_another_mix_of_classes_is_not_taken_for_a_drop(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_predictions(runs / "a", range(90))
    make_evaluation(runs / "e", runs / "a", range(90))
    rows = [row for row in read_table(runs / "e/predictions.csv") if row["label"] != "malignant"]
    save_predictions(runs / "e", rows)
    block = evaluated(runs, tmp_path / "made")["against its own test images"]
    assert "figures that mix the classes are not compared" in " ".join(block.sentences)
    assert block.grids == () and "No main figure is defined on both." in block.sentences


def test_two_classes_are_compared_with_lesions_alone(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_predictions(runs / "a", range(30), {2, 5})  # two wrong normal ones, of which nothing must be seen
    make_evaluation(runs / "e", runs / "a", range(30))
    path = runs / "e/predictions.csv"
    rows = [row for row in read_table(path) if row["label"] != "normal"]
    rows[0] |= {"prediction": "malignant", "p_benign": "0.1", "p_malignant": "0.8", "p_normal": "0.1"}
    rows[1] |= {"prediction": "normal", "p_benign": "0.1", "p_malignant": "0.3", "p_normal": "0.6"}
    save_predictions(path.parent, rows)
    block = evaluated(runs, tmp_path / "made")["against its own test images"]
    lines = lines_of(block)
    assert "both are taken without: 20 of the run's own test images and 20 here" in " ".join(block.sentences)
    counts = "own test images 10 benign, 10 malignant, 10 normal; here 10 benign, 10 malignant, 0 normal"
    assert block.sentences[1] == f"Images of each class: {counts}."
    assert "10 malignant own test images" in block.sentences[2] and "0 normal here" not in block.sentences[2]
    assert "f1" not in lines and lines["f1_present"][0] == "1.000"
    assert lines["accuracy"] == ["1.000", "0.900", "-0.100"]
    assert lines["accuracy_without_normal"] == ["1.000", "0.950", "-0.050"]


def test_figures_without_near_copies_stand_beside(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "paper/mobilenet", 0.5, split=OWN)
    make_predictions(runs / "a", range(30))
    make_evaluation(runs / "e", runs / "a", range(30), {3, 4, 5})
    summary = runs / "e/summary.json"
    summary.write_text(summary.read_text().replace('"experiment": "a"', '"experiment": "paper/mobilenet"'))
    path = runs / "e/predictions.csv"
    rows = [{**row, "near_copy_of": "benign (9)" if i < 6 else ""} for i, row in enumerate(read_table(path))]
    write_rows(path, rows, rows[0])
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    (block,) = told_of(comparison).values()
    assert block.grids[0].titles == ("figure", "own test images", "here", "here without near-copies", "difference")
    lines = lines_of(block)
    wrong = sum(row["label"] != row["prediction"] for row in rows[6:])
    assert lines["accuracy"] == ["1.000", "0.900", f"{1 - wrong / 24:.3f}", "-0.100"]
    assert {"accuracy_without_normal", "auroc_benign_malignant"} <= lines.keys()  # also with normal scans on both sides
    own, elsewhere = comparison.tables
    assert own.rows[0].published and not elsewhere.rows[0].published  # the paper has no figure for other data
    basis = said(comparison)["What this rests on"].sentences[1]
    assert basis.startswith("Table 2: ") and "30 test images." in basis and "training" not in basis
    section = ending(comparison, "Table 2: ")
    assert section.sentences[0].startswith("One run, so nothing is ranked")
    assert section.grids[0].titles[0] == "run" and "val/f1" not in section.grids[0].titles
    assert "images/s" not in section.parts[0].grids[0].titles  # what the run's training cost is said beside the run


def test_the_own_test_set_again_stands_in_no_table_beside_its_run(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_predictions(runs / "a", range(60))
    same: dict[str, Any] = {"split": OWN, "data": {"name": "busi", "digest": "dd", "test": 60}}
    make_evaluation(runs / "e", runs / "a", range(60), **same)
    write_rows(runs / "e/flags.csv", [{"image": f"{i:03}", "flag": "dark"} for i in range(24)], ["image", "flag"])
    comparison = compare([runs], tmp_path / "made", formats=TABLES)
    assert [order(table) for table in comparison.tables] == [["a"]]
    assert [folder for folder, _ in comparison.again] == ["e"]
    assert [block.title for block in told_of(comparison).values()] == ["a on busi: strata"]
    alone = compare([runs / "e"], tmp_path / "other", formats=TABLES)
    assert [order(table) for table in alone.tables] == [["a"]] and alone.again == ()


def test_strata_by_hand(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_evaluation(runs / "e", runs / "a", range(120), set(range(24)))
    flags = [(f"{i:03}", "dark") for i in range(48)] + [(f"{i:03}", "marks") for i in range(98, 103)]
    flags += [("999", "gone")]
    write_rows(
        runs / "e/flags.csv", [dict(zip(("image", "flag"), flag, strict=True)) for flag in flags], ["image", "flag"]
    )
    block = evaluated(runs, tmp_path / "made")["strata"]
    assert block.grids[0].titles[:6] == (
        *("flag", "images with", "images without"),
        *("accuracy with", "accuracy without", "accuracy difference"),
    )
    dark, marks = shown(block.grids[0])
    assert dark[:6] == ["dark", "48", "72", "0.500", "1.000", "-0.500"]
    assert marks[:6] == ["marks", "5", "115", "1.000", f"{91 / 115:.3f}", "–"]  # noqa: RUF001
    assert (
        block.sentences[-1]
        == (
            "Fewer than 20 groups on one side of a figure, so without its difference: dark, marks."
        )  # 16 groups have a malignant dark scan
    )


def stress_rows(**ladders: list[float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"ladder": "none", "severity": 0, "accuracy": 0.8, "auroc_malignant": 0.9}]
    for ladder, values in ladders.items():
        for severity, value in enumerate(values, start=1):
            rows.append({"ladder": ladder, "severity": severity, "accuracy": value, "auroc_malignant": 0.5})
    return rows


def test_stress_and_robustness_by_hand(runs: Path, tmp_path: Path) -> None:
    assert robustness({"a": [0.8, 0.8, 0.4], "b": [0.5, 0.5, 0.25]}) == pytest.approx(0.75)
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_evaluation(runs / "e", runs / "a", range(30))
    rows = stress_rows(gain=[0.8, 0.4], blur=[0.6, 0.2], cut=[0.8])
    write_rows(runs / "e/stress.csv", rows, rows[0])
    block = evaluated(runs, tmp_path / "made")["under stress (accuracy)"]
    assert shown(block.grids[0]) == [["gain", "0.800", "0.800", "0.400"], ["blur", "0.800", "0.600", "0.200"]]
    assert block.sentences[0].startswith("Robustness 0.625: accuracy")  # (0.8 + 0.4 + 0.6 + 0.2) / 4 / 0.8
    assert "lowest at the highest severity is blur, 0.200" in block.sentences[0]
    assert block.sentences[1] == "Always naming the most frequent class would have an accuracy of 0.333."
    compare([runs], tmp_path / "made", formats=("html",))
    page = (tmp_path / "made/report.html").read_text(encoding="utf-8")
    assert "gain: accuracy from 0.800 to 0.400, auroc_malignant from 0.900 to 0.500" in page


@pytest.mark.parametrize("images", [40, 10])
@pytest.mark.parametrize("reads", [True, False])
def test_shortcuts_and_their_verdict(runs: Path, tmp_path: Path, images: int, reads: bool) -> None:
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_evaluation(runs / "e", runs / "a", range(30))
    rows = []
    for condition in ("whole scan", "lesion blanked"):
        for i in range(images):
            knows = reads or condition == "whole scan"
            p = (0.9 if i % 2 else 0.1) if knows else (0.4, 0.4, 0.6, 0.6)[i % 4]
            shares = {"p_benign": 1 - p, "p_malignant": p, "p_normal": 0}
            label, called = CLASSES[i % 2], CLASSES[int(p > 0.5)]
            rows.append({"condition": condition, "image": f"{i}", "label": label, "prediction": called, **shares})
    write_rows(runs / "e/shortcuts.csv", rows, rows[0])
    block = evaluated(runs, tmp_path / "made")["shortcuts"]
    whole, blanked = shown(block.grids[0])
    assert whole == ["whole scan", str(images), "1.000", "1.000"]
    assert blanked[2:] == (["1.000", "1.000"] if reads else [f"{0.5:.3f}", "0.500"]) or images == 10
    beginning = "Accuracy survives without the lesion" if reads else "Without the lesion the run does not tell"
    assert block.sentences[1].startswith(beginning if images == 40 else "Fewer than 20 groups of a class")


@pytest.mark.parametrize("name", ["stress.csv", "flags.csv", "shortcuts.csv", "source_predictions.csv"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"image,flag\n000\n",
        b"ladder,severity,accuracy\nnone,0,0.9\ngain,1\n",
        b"ladder,severity,accuracy\nnone,0,much\ngain,1,less\n",
        b"ladder,severity,accuracy\nnone,0,nan\ngain,x,0.3\n",
        b"ladder,severity,accuracy\nnone,0,0\ngain,1,0\n",
        b"ladder,severity,accuracy\nnone,0,0.5\n",
        b"condition,image,label,prediction,p_benign,p_malignant,p_normal\nlesion blanked,a,benign,benign,x,y,z\n",
        b"condition,image,label,prediction,p_benign,p_malignant,p_normal\nlesion blanked,a,normal,normal,0,0,1\n",
        b"condition,image,label,prediction,p_benign,p_malignant,p_normal\nlesion blanked,a,cyst",
        b"image,label,prediction,p_benign,p_malignant,p_normal\na,normal,normal,0,0,1\n",
        b"a,b\n1,2,3,4\n",
    ],
)
def test_damaged_tables_cost_their_block_alone(runs: Path, tmp_path: Path, name: str, content: bytes) -> None:
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_predictions(runs / "a", range(30))
    make_evaluation(runs / "e", runs / "a", range(30))
    path = runs / "e/predictions.csv"
    lesions = [row for row in read_table(path) if row["label"] != "normal"]
    save_predictions(path.parent, lesions)
    (runs / "e" / name).write_bytes(content)
    page = () if content else ("html",)  # what is left to draw is the same for all
    comparison = compare([runs], tmp_path / "made", formats=("md", "csv", *page))
    titles = [block.title for block in told_of(comparison).values()]
    assert titles == ([] if name == "source_predictions.csv" else ["a on labels: against its own test images"])
    assert len(comparison.tables) == 2


def test_evaluations_with_odd_records_and_names(runs: Path, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> | *x*"
    make_run(runs / "a", "a", 0.5, split=OWN)
    make_predictions(runs / "a", range(30))
    make_evaluation(runs / "odd", runs / "a", range(30), source={"split": ["x"], "directory": 5, "data": None})
    data = {"name": hostile, "digest": "ff", "test": 30}
    make_evaluation(runs / "bad", runs / "a", range(30), data=data)
    write_rows(runs / "bad/flags.csv", [{"image": "001", "flag": f"{hostile}\nline"}], ["image", "flag"])
    rows = stress_rows(**{hostile: [0.5, 0.4]})
    write_rows(runs / "bad/stress.csv", rows, rows[0])
    comparison = compare([runs], tmp_path / "made")
    assert len(told_of(comparison)) == 3
    assert "source.directory must be a text" in comparison.failures[0].reason
    page = (tmp_path / "made/report.html").read_text(encoding="utf-8")
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<script>alert" not in markdown
    assert all(not line.startswith("line") for line in markdown.splitlines())


def test_folds_evaluated_on_the_same_data_are_repeats(runs: Path, tmp_path: Path) -> None:
    for fold in range(3):
        split = {**OWN, "protocol": "grouped_kfold", "fold": fold, "test_digest": f"t{fold}"}
        source = {"directory": str(runs / f"r{fold}"), "data": "busi", "data_digest": "dd", "split": split}
        make_evaluation(runs / f"e{fold}", runs / f"r{fold}", range(30), set(range(fold)), source=source)
        (runs / f"e{fold}/config.yaml").rename(runs / f"e{fold}/source_config.yaml")  # taken along from the run
    source |= {"split": {**OWN, "protocol": "published"}}
    make_evaluation(runs / "p", runs / "p", range(30), source=source)
    records = repeat_records(compare([runs], tmp_path / "made", formats=TABLES))
    found = {record["experiment"] + str(record["runs"]): record for record in records}
    assert sorted(found) == ["a1", "a3"]
    assert found["a3"]["seeds"] == 3 and found["a3"]["images"] == 30


def test_the_old_report_stays_until_the_new_one_is_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    make_run(runs / "a", "paper/vgg16", 0.80)
    compare([runs], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("busi_lab.compare.records", full)
    with pytest.raises(UserError, match="cannot be written"):
        compare([runs], out)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
