"""Reports on runs that are unlike, damaged or small: nothing wrong is said, and nothing ends in a traceback."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from busi_lab.classes import BUSI, Classes
from busi_lab.compare import compare
from busi_lab.errors import UserError
from busi_lab.files import read_rows, write_rows
from busi_lab.report.results.analysis import analyse
from busi_lab.report.results.reading import build
from busi_lab.summary import DataRecord, Objective, Source, SplitRecord, Summary, write_summary
from tests.report.said import read, rows


def roles(classes: Classes) -> dict[str, Any]:
    return {
        "class_names": classes.names,
        "positive_class": classes.positive,
        "class_without_lesion": classes.without_lesion,
    }


def make_run(
    folder: Path,
    classes: Classes = BUSI,
    *,
    task: str = "classification",
    tested: Sequence[str] | None = None,
    images: int = 60,
    wrong: int = 6,
    **changes: Any,
) -> None:
    """A run with ``images`` test images of the classes ``tested`` in turn, of which the first ``wrong`` are wrong."""
    present, lines = tested or classes.names, []
    for i in range(images):
        label = present[i % len(present)]
        called = classes.names[(classes.number(label) + (i < wrong)) % len(classes)]
        line: dict[str, Any] = {"image": f"{i:02}", "label": label, "group": f"{i}"}
        if task != "segmentation":
            shares = {f"p_{name}": 0.8 if name == called else 0.2 / (len(classes) - 1) for name in classes.names}
            line |= {"prediction": called, **shares}
        if task != "classification":
            lesion = 0 if label == classes.without_lesion else 40
            line |= {"dice": 0.5 + i / 200 if lesion else "", "iou": 0.4 if lesion else ""}
            line |= {"lesion_pixels": lesion, "predicted_pixels": 40, "pixels": 900}
        lines.append(line)
    fields: dict[str, Any] = {
        "status": "finished",
        "task": task,
        "experiment": "one",
        "seed": 0,
        "split": SplitRecord("holdout", 0, digest="s", test_digest="t", leaked=0),
        "data": DataRecord("scans", digest="d", test=images, **roles(classes)),
        "objective": Objective("val/f1", "max"),
        "metrics": {"val/f1": 1 - wrong / 100, "test/accuracy": 1 - wrong / images},
    }
    write_summary(folder, Summary(**(fields | changes)))
    write_rows(folder / "predictions.csv", lines, lines[0])
    for name in ("config.yaml", "source_config.yaml"):
        (folder / name).write_text(json.dumps({"trainer": {"max_epochs": 3}}))


def source_of(digest: str, classes: Classes = BUSI) -> Source:
    split = SplitRecord("holdout", 0, digest="q", test_digest="own")
    return Source(f"/runs/{digest}", data="labels", data_digest=digest, split=split, **roles(classes))


def everything(folder: Path) -> str:
    """All sentences of a report."""
    return "\n".join(sentence for section in read(folder).values() for sentence in section.sentences)


def test_runs_that_have_learnt_from_other_data_are_no_repeats_where_they_are_evaluated(tmp_path: Path) -> None:
    for digest, wrong in {"aaaa": 6, "bbbb": 30}.items():
        make_run(tmp_path / digest, wrong=wrong, source=source_of(digest))
    said = read(tmp_path)
    assert said["What was found"].sentences[0].startswith("Best of 2 models on its own validation images is one (train")
    (grid,) = next(section for title, section in said.items() if title.startswith("Experiments with")).grids
    assert [line[0] for line in rows(grid)] == ["one (trained on data aaaa)", "one (trained on data bbbb)"]


def test_a_lone_run_has_no_comma_behind_its_name_and_marked_normal_scans_are_no_right_ones(tmp_path: Path) -> None:
    make_run(tmp_path / "a", task="segmentation", tested=("normal",))
    assert read(tmp_path)["Examples"].sentences == ("one: the normal scans with the largest predicted lesion.",)
    (tmp_path / "a/predictions.csv").write_text("image,label\n")
    assert read(tmp_path)["Mistakes"].sentences == ("one has no readable predictions.csv.",)


def test_no_figure_of_the_paper_stands_beside_fewer_classes(tmp_path: Path) -> None:
    data = DataRecord("busi", digest="d", test=60, classes=("benign", "malignant"), **roles(BUSI))
    make_run(tmp_path / "a", tested=data.classes, experiment="paper/mobilenet", data=data)
    assert "paper 0.98" not in everything(tmp_path)
    whole = DataRecord("busi", digest="d", test=60, classes=BUSI.names, **roles(BUSI))
    make_run(tmp_path / "a", experiment="paper/mobilenet", data=whole)
    assert "paper 0.98" in everything(tmp_path)


def test_an_evaluation_without_a_positive_class_names_none(tmp_path: Path) -> None:
    classes = Classes(BUSI.names, None, "normal")
    make_run(tmp_path / "runs/a", classes, tested=("benign", "malignant"), source=source_of("aaaa", classes))
    make_run(tmp_path / "own", classes)
    (tmp_path / "own/predictions.csv").rename(tmp_path / "runs/a/source_predictions.csv")
    said = everything(tmp_path / "runs")
    assert "Only one of both has normal scans, so that both are taken without: 40 of the run's own test" in said
    assert "None" not in said


def test_an_evaluation_on_masks_alone_says_nothing_of_classes(tmp_path: Path) -> None:
    make_run(tmp_path / "a", task="multitask", source=source_of("aaaa"))
    table = tmp_path / "a/predictions.csv"
    lines = read_rows(table)
    write_rows(tmp_path / "a/source_predictions.csv", lines, lines[0])
    kept = [name for name in lines[0] if name != "prediction" and not name.startswith("p_")]
    write_rows(table, [{**line, "label": ""} for line in lines], kept)
    said = everything(tmp_path)
    assert "dice is no significant difference" in said.lower()
    assert "Only one of both" not in said


def test_one_is_no_plural(tmp_path: Path) -> None:
    for name in "abc":
        make_run(tmp_path / name, experiment="other" if name == "c" else "one", images=2)
        lines = [{**line, "group": "g"} for line in read_rows(tmp_path / name / "predictions.csv")]
        write_rows(tmp_path / name / "predictions.csv", lines, lines[0])
    said = read(tmp_path)
    lines = [line for section in said.values() for grid in section.grids for line in rows(grid)]
    told = " ".join(word for line in lines for word in line)
    assert "one has 1 more run with the same seeds" in everything(tmp_path)
    assert "one and other have 1 group, too few" in told


@pytest.mark.parametrize("lost", ["prediction", "dice"])
def test_a_repeat_that_lacks_a_column_is_damaged(tmp_path: Path, lost: str) -> None:
    for seed in range(2):
        make_run(tmp_path / f"{seed}", task="multitask", seed=seed)
    make_run(tmp_path / "other", task="multitask", experiment="other")
    lines = read_rows(tmp_path / "1/predictions.csv")
    write_rows(tmp_path / "1/predictions.csv", lines, [name for name in lines[0] if name != lost])
    assert "one has readable predictions of 1 of 2 runs and is not tested: predictions.csv is" in everything(tmp_path)


@pytest.mark.parametrize("change", [{"image": "00"}, {"p_benign": "7"}, {"p_benign": "-0.2"}])
def test_predictions_that_cannot_be_are_damaged(tmp_path: Path, change: dict[str, str]) -> None:
    make_run(tmp_path / "a")
    lines = read_rows(tmp_path / "a/predictions.csv")
    write_rows(tmp_path / "a/predictions.csv", [*lines[:-1], {**lines[-1], **change}], lines[0])
    assert read(tmp_path)["What this rests on"].notes == ("predictions.csv is damaged, so nothing is made of it: one.",)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("class_names", ["benign"], "data.class_names must be two names at least, each once, found 'benign'"),
        ("class_names", ["a", "a"], "data.class_names must be two names at least, each once, found 'a, a'"),
        ("positive_class", "solid", "data.positive_class must be one of benign, malignant, normal, found 'solid'"),
        ("class_without_lesion", "x", "data.class_without_lesion must be one of benign, malignant, normal, found 'x'"),
    ],
)
def test_a_summary_with_roles_of_no_class_is_unreadable(tmp_path: Path, key: str, value: Any, reason: str) -> None:
    for name in "ab":
        make_run(tmp_path / name)
    content = json.loads((tmp_path / "a/summary.json").read_text())
    content["data"][key] = value
    (tmp_path / "a/summary.json").write_text(json.dumps(content))
    (line,) = rows(read(tmp_path)["Runs without a result"].grids[0])
    assert line[3].endswith(reason)


def test_numbers_of_hundreds_of_digits_are_none(tmp_path: Path) -> None:
    make_run(tmp_path / "a", seed=10**400, metrics={"val/f1": 10**400, "test/accuracy": 10**400})
    assert "No run recorded val/f1, so there is no best one." in read(tmp_path)["What was found"].sentences


def test_runs_of_other_classes_are_evaluated_together(tmp_path: Path) -> None:
    two = Classes(("benign", "normal"), None, "normal")
    make_run(tmp_path / "a", tested=two.names, source=source_of("aaaa"))
    make_run(tmp_path / "b", two, wrong=9, source=source_of("bbbb", two))
    assert "Best of 2 models" in everything(tmp_path)


@pytest.mark.parametrize(
    ("name", "synthetic", "expected"), [("busi", True, True), ("cirs_phantom_study", False, False)]
)
def test_what_a_run_recorded_tells_phantoms_not_their_name(
    tmp_path: Path, name: str, synthetic: bool, expected: bool
) -> None:
    make_run(tmp_path / "runs/one", data=DataRecord(name, digest="d", test=60, synthetic=synthetic, **roles(BUSI)))
    notes = read(tmp_path / "runs")["What was found"].notes
    assert any(note.startswith("These are synthetic phantoms") for note in notes) == expected


def test_a_comparison_is_not_half_replaced(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/one")
    (tmp_path / "out/table.md").mkdir(parents=True)
    (tmp_path / "out/report.html").write_text("before")
    with pytest.raises(UserError, match=r"table.md is a folder there"):
        compare([tmp_path / "runs"], tmp_path / "out")
    assert (tmp_path / "out/report.html").read_text() == "before"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "table.md"}


def test_runs_of_other_classes_are_no_repeats(tmp_path: Path) -> None:
    """Their probabilities stand in other columns, whatever the digests say."""
    for seed, classes in enumerate((BUSI, Classes(("normal", "malignant", "benign"), "malignant", "normal"))):
        make_run(tmp_path / str(seed), classes, seed=seed)
    assert len(analyse(build([tmp_path])).experiments) == 2


def test_folds_of_two_versions_of_a_split_are_two_experiments(tmp_path: Path) -> None:
    for fold in range(2):
        split = SplitRecord("grouped_kfold", 0, fold, 2, f"s{fold}", f"t{fold}", 0, version=1 + fold)
        make_run(tmp_path / f"{fold}", split=split)
    first, second = analyse(build([tmp_path])).experiments
    assert [first.label, second.label] == [f"one (split version {n}, test set t{n - 1})" for n in (1, 2)]


def test_what_is_not_known_of_a_split_is_said(tmp_path: Path) -> None:
    uneven = "test has 60% of the normal images where 20% was wanted: their 21 groups cannot be shared out evenly"
    split = SplitRecord("grouped_holdout", 0, None, None, "s", "t", None, 2, (uneven,), "none")
    make_run(tmp_path, split=split)
    basis = read(tmp_path)["What this rests on"]
    assert "Leaked test images: not counted, because near-copies were not looked for." in basis.sentences[0]
    assert basis.notes[0].startswith("Near-copies were not looked for (split.groups=none)")
    assert basis.notes[1] == f"T{uneven[1:]}."


def test_own_classes_in_busis_layout_are_not_the_papers_data(tmp_path: Path) -> None:
    own = Classes(("cyst", "solid", "healthy"), "solid", "healthy")
    for folder, classes in (("own", own), ("busi", BUSI)):
        data = DataRecord("busi", digest="d", test=60, **roles(classes))
        make_run(tmp_path / folder, classes, experiment="paper/mobilenet", data=data)
        assert ("Published figures" in read(tmp_path / folder)) == (folder == "busi")
