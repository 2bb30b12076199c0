"""busi-eval as a user types it: what it tests, the result directory it leaves, and what it says about wrong input."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from busi_lab.classes import BUSI
from busi_lab.data import stress
from busi_lab.data.index import index_dataset
from busi_lab.data.masks import read_mask
from busi_lab.data.reading import read_image
from busi_lab.data.resizing import resize_scan
from busi_lab.evaluate import _compare
from busi_lab.files import write_json, write_rows
from busi_lab.run import evaluation, probes
from busi_lab.run_directory import read_run
from busi_lab.summary import Source, read_summary
from busi_lab.tasks import load_task
from tests.conftest import SMALL, TRAINED
from tests.programs import call

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Call ``busi-eval``; returns the exit code and the error lines, and puts results into ``tmp_path``."""
    monkeypatch.chdir(tmp_path)

    def evaluated(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = call("evaluate", *arguments)
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return code, "\n".join(errors)

    return evaluated


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def log(directory: Path) -> str:
    return (directory / "evaluate.log").read_text(encoding="utf-8")


def altered(run: Path, target: Path, **changes: Any) -> Path:
    """A copy of a run with other fields in its summary."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("last.ckpt", "metrics.csv"))
    summary = json.loads((run / "summary.json").read_text())
    for name, value in changes.items():
        summary[name] = (summary[name] or {}) | value if isinstance(value, dict) else value
    write_json(target / "summary.json", summary)
    return target


def same_figures(here: dict[str, Any], there: dict[str, Any]) -> None:
    matrix = "test/confusion_matrix"
    assert here.get(matrix) == there.get(matrix)
    scalars = [{key: value for key, value in each.items() if key != matrix} for each in (here, there)]
    assert scalars[0] == pytest.approx(scalars[1], abs=1e-6)


def manifest(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "split.json").read_text()))


def relabel(
    root: Path, images: Sequence[str], target: Path, classes: Sequence[str] = BUSI.names, **columns: str
) -> Path:
    """Phantoms as a flat labels folder in the same order; each mask in two files, in a folder of its own."""
    table = []
    for image in images:
        label = image.split(" ")[0]
        if label not in classes:
            continue
        name = f"x{len(table):03}"
        (target / "m").mkdir(parents=True, exist_ok=True)
        shutil.copy(root / label / f"{image}.png", target / f"{name}.png")
        lesion = read_mask(root / label / f"{image}_mask.png")
        for part, columns_of_it in (("a", slice(0, 48)), ("b", slice(40, None))):
            half = np.zeros_like(lesion)
            half[:, columns_of_it] = lesion[:, columns_of_it]
            Image.fromarray(half).save(target / f"m/{name}_{part}.png")
        masks = "" if label == "normal" else f"m/{name}_a.png; m/{name}_b.png"
        table.append({"file": f"{name}.png", "label": label, "mask_file": masks, **columns})
    with (target / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return target


# -------------------------------------------------------------------------------------- what is evaluated


@pytest.mark.parametrize("name", TRAINED)
def test_the_own_test_set_again_gives_the_same_result(
    cli: Cli, trained: dict[str, Path], tmp_path: Path, name: str
) -> None:
    run, result = trained[name], tmp_path / "result"
    assert cli(f"run={run}", f"hydra.run.dir={result}") == (0, "")
    assert (result / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()
    assert (result / "source_predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()
    assert (result / "validation.csv").read_bytes() == (run / "validation.csv").read_bytes()
    summary, source = read_summary(result), read_summary(run)
    same_figures(summary.metrics, source.metrics)
    assert (summary.status, summary.error, summary.split) == ("finished", None, source.split)
    assert summary.data == replace(source.data, train=None, val=None, classes=BUSI.names)
    assert summary.source == Source(
        directory=str(run.resolve()),
        data="busi",
        data_digest=source.data.digest,
        split=source.split,
        train=source.data.train,
        val=source.data.val,
        test=source.data.test,
        metrics={key: value for key, value in source.metrics.items() if key.startswith("test/")},
        class_names=BUSI.names,
        positive_class="malignant",
        class_without_lesion="normal",
    )
    assert summary.command == f"busi-eval run={run}"
    masks = sorted(path.name for path in (run / "masks").glob("*"))
    assert masks == sorted(path.name for path in (result / "masks").glob("*"))
    assert all((run / "masks" / mask).read_bytes() == (result / "masks" / mask).read_bytes() for mask in masks)
    assert bool(masks) == (name != "classifier")
    assert manifest(result) == manifest(run)
    assert "leaks: 0 of" in log(result) and "split=grouped_holdout keeps" not in log(result)


@pytest.mark.parametrize("name", TRAINED)
def test_the_layout_of_the_data_does_not_matter(
    cli: Cli, trained: dict[str, Path], phantom_root: Path, tmp_path: Path, name: str
) -> None:
    run, result = trained[name], tmp_path / "result"
    own = rows(run / "predictions.csv")
    relabel(phantom_root, [row["image"] for row in own], tmp_path / "other", age="41", dice="7")
    common = (f"run={run}", "data=labels", f"data.root={tmp_path / 'other'}", f"hydra.run.dir={result}")
    assert cli(*common) == (0, "")
    found = rows(result / "predictions.csv")
    for here, there in zip(found, own, strict=True):
        assert {key: here[key] for key in there if key not in ("image", "group")} == {
            key: value for key, value in there.items() if key not in ("image", "group")
        }
        assert (here["age"], here["labels_dice"]) == ("41", "7")
    summary, source = read_summary(result), read_summary(run)
    same_figures(summary.metrics, source.metrics)
    assert summary.split.protocol == "all" and summary.split.leaked == 0
    assert summary.data.root == str((tmp_path / "other").resolve())
    assert "image_size: 32" in (result / "config.yaml").read_text()


def test_learnt_images_are_counted_under_another_split(cli: Cli, trained: dict[str, Path], tmp_path: Path) -> None:
    run, result = trained["classifier"], tmp_path / "result"
    assert cli(f"run={run}", "split=grouped_holdout", "split.seed=5", f"hydra.run.dir={result}")[0] == 0
    learnt, tested = manifest(run), manifest(result)["test"]
    expected = len({*learnt["train"], *learnt["val"]} & set(tested))
    assert expected > 0
    assert read_summary(result).split.leaked == expected  # no two phantoms are near-copies
    assert f"leaks: at least {expected} of {len(tested)} test images" in log(result)
    assert "split=grouped_holdout keeps them apart" not in log(result)


def test_classes_and_scans_that_a_run_left_out_are_not_learnt(
    cli: Cli, trained: dict[str, Path], tmp_path: Path
) -> None:
    run = altered(trained["classifier"], tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("classes: null", "classes: [benign]"))
    assert config != (run / "config.yaml").read_text()
    root = read_summary(run).data.root
    arguments = (f"run={run}", "data=busi", f"data.root={root}", f"hydra.run.dir={tmp_path / 'result'}")
    assert cli(*arguments) == (0, "")
    learnt = manifest(run)
    expected = sum(image.startswith("benign") for image in (*learnt["train"], *learnt["val"]))
    assert read_summary(tmp_path / "result").split.leaked == expected
    assert read_summary(tmp_path / "result").data.test == 30


def test_copies_of_learnt_images_in_other_data_are_counted(
    cli: Cli, trained: dict[str, Path], phantom_root: Path, tmp_path: Path
) -> None:
    run = trained["classifier"]
    learnt = manifest(run)
    relabel(phantom_root, [*learnt["train"][:3], *learnt["val"][:1], *learnt["test"][:4]], tmp_path / "other")
    arguments = ("data=labels", f"data.root={tmp_path / 'other'}")
    assert cli(f"run={run}", *arguments, f"hydra.run.dir={tmp_path / 'result'}") == (0, "")
    summary, found = read_summary(tmp_path / "result"), rows(tmp_path / "result/predictions.csv")
    assert summary.split.leaked == 4
    named = {row["near_copy_of"] for row in found} - {""}
    assert named == {*learnt["train"][:3], *learnt["val"][:1]}
    assert [bool(row["near_copy_of"]) for row in found].count(True) == 4
    clean = [row["label"] == row["prediction"] for row in found if not row["near_copy_of"]]
    assert summary.metrics["test/accuracy_without_near_copies"] == pytest.approx(sum(clean) / 4)
    assert f"({sum(clean) / 4:.4f} without near-copies)" in log(tmp_path / "result")
    gone = altered(run, tmp_path / "gone", data={"root": str(tmp_path / "nowhere")})
    assert cli(f"run={gone}", *arguments, f"hydra.run.dir={tmp_path / 'result2'}") == (0, "")
    assert read_summary(tmp_path / "result2").split.leaked is None
    assert evaluation._UNCOUNTED in log(tmp_path / "result2")
    # the data are there again for the run itself where data.root names them
    again = (f"run={gone}", f"hydra.run.dir={tmp_path / 'result3'}")
    code, error = cli(*again)
    assert code == 2 and "nowhere" in error
    assert cli(*again, f"data.root={phantom_root}") == (0, "")
    assert read_summary(tmp_path / "result3").split.leaked == 0


def test_data_of_two_classes_have_an_accuracy_of_their_own(
    cli: Cli, trained: dict[str, Path], phantom_root: Path, tmp_path: Path
) -> None:
    images = [f"{label} ({number})" for label in BUSI.names for number in range(1, 9)]
    other = relabel(phantom_root, images, tmp_path / "other", ("benign", "malignant"))
    result = tmp_path / "result"
    arguments = (f"run={trained['classifier']}", "data=labels", f"data.root={other}", f"hydra.run.dir={result}")
    assert cli(*arguments) == (0, "")
    found = rows(result / "predictions.csv")
    right = [(float(r["p_malignant"]) > float(r["p_benign"])) == (r["label"] == "malignant") for r in found]
    metrics = read_summary(result).metrics
    assert metrics["test/accuracy_without_normal"] == pytest.approx(sum(right) / 16)
    assert read_summary(result).data.classes == ("benign", "malignant")
    assert "test images: 8 benign, 8 malignant, 0 normal; fewer than 20 of benign and malignant" in log(result)
    assert "test/f1" not in metrics and 0 <= metrics["test/f1_present"] <= 1  # a class that it has learnt is absent
    assert f"test/accuracy_without_normal {sum(right) / 16:.4f}" in log(result)


def test_masks_of_scans_without_a_label(cli: Cli, trained: dict[str, Path], phantom_root: Path, tmp_path: Path) -> None:
    other = relabel(phantom_root, [f"benign ({n})" for n in range(1, 4)], tmp_path / "other")
    text = (other / "labels.csv").read_text().replace("benign", "")
    (other / "labels.csv").write_text(text)
    arguments = ("data=labels", f"data.root={other}")
    assert cli(f"run={trained['segmenter']}", *arguments, f"hydra.run.dir={tmp_path / 'result'}") == (0, "")
    assert [row["label"] for row in rows(tmp_path / "result/predictions.csv")] == ["", "", ""]
    assert read_summary(tmp_path / "result").data.classes == ()
    code, error = cli(f"run={trained['classifier']}", *arguments, f"hydra.run.dir={tmp_path / 'refused'}")
    assert code == 2 and "all 3 scans are without a label" in error
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("known", ["labels", "masks"])
def test_a_joint_run_on_data_with_one_half_is_judged_by_that(
    cli: Cli, trained: dict[str, Path], phantom_root: Path, tmp_path: Path, known: str
) -> None:
    images = [f"{label} ({number})" for label in BUSI.names for number in range(1, 4)]
    other = relabel(phantom_root, images, tmp_path / "other")
    table = rows(other / "labels.csv")
    for row in table:
        empty = "no lesion.png" if row["label"] == "normal" and known == "masks" else row["mask_file"]
        row |= {"mask_file": "", "label": row["label"]} if known == "labels" else {"label": "", "mask_file": empty}
    Image.new("1", (8, 8)).save(other / "no lesion.png")
    if known == "masks":
        table = [row for row in table if row["mask_file"] != "no lesion.png"]
    write_rows(other / "labels.csv", table, table[0])
    common = (f"run={trained['joint']}", "data=labels", f"data.root={other}", "data.name=my_hospital")
    assert cli(*common, f"hydra.run.dir={tmp_path / 'result'}") == (0, "")
    summary, found = read_summary(tmp_path / "result"), rows(tmp_path / "result/predictions.csv")
    assert summary.data.name == "my_hospital" and summary.data.test == len(found) == (9 if known == "labels" else 6)
    classes, masks = {"prediction", "p_benign"} <= found[0].keys(), {"dice", "iou"} <= found[0].keys()
    assert (classes, masks) == (known == "labels", known == "masks")
    assert ("test/accuracy" in summary.metrics, "test/dice" in summary.metrics) == (classes, masks)
    assert (tmp_path / "result/masks").is_dir() == (tmp_path / "result/lesions.csv").is_file() == masks
    assert f"no scan with a lesion has both label and mask: the {known} are judged" in log(tmp_path / "result")


@pytest.mark.slow
def test_a_run_on_phantoms_needs_no_data_named(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUSI_ROOT", raising=False)
    settings = ("data=phantom", "data.phantom.counts={benign: 9, malignant: 9, normal: 9}", *TRAINED["classifier"])
    small = (*SMALL, f"data.cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}")
    assert call("train", *settings, *small) == 0
    shutil.rmtree(tmp_path / "cache")  # they are made again
    assert cli("run=run", f"hydra.run.dir={tmp_path / 'result'}") == (0, "")
    assert rows(tmp_path / "result/predictions.csv") == rows(tmp_path / "run/predictions.csv")


def test_a_run_with_relative_paths_is_evaluated_from_anywhere(
    cli: Cli, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(phantom_root.parent)
    run = f"hydra.run.dir={tmp_path / 'run'}"
    moved = "hydra.job.chdir=true"  # paths are meant from where the command was typed all the same
    assert call("train", f"data.root={phantom_root.name}", *SMALL, *TRAINED["classifier"], run, moved) == 0
    monkeypatch.chdir(tmp_path)
    assert cli("run=run", "hydra.run.dir=result", moved) == (0, "")
    assert read_summary(tmp_path / "result").source.directory == str((tmp_path / "run").resolve())  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------ strata


def test_flags_of_tested_images_are_kept(cli: Cli, trained: dict[str, Path], tmp_path: Path) -> None:
    split = manifest(trained["classifier"])
    first, second, learnt = *split["test"][:2], split["train"][0]
    lines = [f"{first},dark", f"{second},dark", "", f"{first}, dark", f"{first},marks", f"{learnt},dark"]
    (tmp_path / "flags.csv").write_text("\ufeffimage,flag\n" + "\n".join(lines) + "\n", encoding="utf-8")
    arguments = (f"run={trained['classifier']}", "flags=flags.csv", f"hydra.run.dir={tmp_path / 'result'}")
    assert cli(*arguments) == (0, "")
    assert rows(tmp_path / "result/flags.csv") == [
        {"image": image, "flag": flag} for image, flag in ((first, "dark"), (second, "dark"), (first, "marks"))
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,flag\n\ncyst (1),dark\n", "flags.csv, line 3: expected an image of"),
        ("image,flag\nbenign (1),\n", "flags.csv, line 2: benign (1) has no flag"),
        ("image,flag\nbenign (1)\n", "flags.csv, line 2: benign (1) has no flag"),
        ("image,mark\nbenign (1),dark\n", "flag missing; expected a CSV file with the columns image,flag"),
        ("", "image missing"),
        ("image,flag\nLEARNT,dark\n", "none of its images is tested"),
        ("image,flag\n", "none of its images is tested"),
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_wrong_flags(cli: Cli, trained: dict[str, Path], tmp_path: Path, content: Any, message: str) -> None:
    if isinstance(content, str):
        learnt = manifest(trained["classifier"])["train"][0]
        (tmp_path / "flags.csv").write_text(content.replace("LEARNT", learnt))
    elif content is not None:
        (tmp_path / "flags.csv").write_bytes(content)
    code, error = cli(f"run={trained['classifier']}", "flags=flags.csv", f"hydra.run.dir={tmp_path / 'result'}")
    assert code == 2
    assert message in error and "\n" not in error
    assert not (tmp_path / "result").exists()


# ----------------------------------------------------------------------------------- stress and shortcuts


def predicted(run: Path, images: list[Any]) -> list[list[float]]:
    task, _ = load_task(run)
    scans = torch.from_numpy(np.stack([resize_scan(image, task.image_size) for image in images]))[:, None]
    with torch.no_grad():
        return [[float(p) for p in row] for row in task(scans).classes.softmax(1)]


def scan_and_mask(root: Path, row: dict[str, str]) -> tuple[Any, Any]:
    path = root / row["label"] / f"{row['image']}.png"
    return read_image(path), read_mask(path.with_name(f"{row['image']}_mask.png"))


def test_stress_shortcuts_and_explanations(
    cli: Cli, trained: dict[str, Path], phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, result = trained["classifier"], tmp_path / "result"
    settings = ("stress=ultrasound", "shortcuts=true", "explain=gradcam")
    assert cli(f"run={run}", *settings, f"hydra.run.dir={result}") == (0, "")
    tested, metrics = rows(result / "predictions.csv"), read_summary(result).metrics
    assert tested == rows(run / "predictions.csv")

    table = rows(result / "stress.csv")
    assert len(table) == 1 + 9 * 5
    steps = [(row["ladder"], row["severity"]) for row in table]
    assert steps == [("none", "0"), *((ladder, str(i)) for ladder in stress.LADDERS for i in range(1, 6))]
    assert float(table[0]["accuracy"]) == pytest.approx(metrics["test/accuracy"])
    seeds = {case.case_id: int(case.content_hash[:8], 16) for case in index_dataset(phantom_root).cases}
    changed = [
        stress.degrade(*scan_and_mask(phantom_root, row), "contrast", 5, seeds[row["image"]])[0] for row in tested
    ]
    shares = predicted(run, changed)
    right = [BUSI.names[int(np.argmax(p))] == row["label"] for p, row in zip(shares, tested, strict=True)]
    at = {(row["ladder"], row["severity"]): row for row in table}
    assert float(at["contrast", "5"]["accuracy"]) == pytest.approx(np.mean(right), abs=1e-6)

    found = rows(result / "shortcuts.csv")
    ill = [row for row in tested if row["label"] != "normal"]
    conditions = {"whole scan": None, "lesion blanked": stress.without_lesion, "lesion alone": stress.lesion_alone}
    assert [(r["condition"], r["image"]) for r in found] == [(c, r["image"]) for c in conditions for r in ill]
    for condition, change in conditions.items():
        part = [row for row in found if row["condition"] == condition]
        pairs = [scan_and_mask(phantom_root, row) for row in part]
        expected = predicted(run, [change(*pair) if change else pair[0] for pair in pairs])
        for row, p in zip(part, expected, strict=True):
            assert [float(row[f"p_{name}"]) for name in BUSI.names] == pytest.approx(p, abs=1e-5)

    assert len(list((result / "explanations/gradcam").iterdir())) == len(tested)
    energy, share = [], []
    for row in ill:
        heat = np.asarray(Image.open(result / f"explanations/gradcam/{row['image']}.png"), dtype=float)
        lesion = scan_and_mask(phantom_root, row)[1]
        assert heat.shape == lesion.shape
        energy.append(heat[lesion].sum() / heat.sum() if heat.any() else 0.0)
        share.append(lesion.mean())
    assert metrics["test/gradcam_energy"] == pytest.approx(np.mean(energy), abs=0.02)
    assert metrics["test/lesion_share"] == pytest.approx(np.mean(share))
    assert 0 <= metrics["test/gradcam_pointing"] <= 1

    capsys.readouterr()
    _compare([result])
    printed = capsys.readouterr().out
    assert "under stress (accuracy)" in printed and ": shortcuts" in printed and ": explanations" in printed
    assert "against its own test images" not in printed  # they are the same
    page = (result / "comparison/report.html").read_text(encoding="utf-8")
    wrong = [row for row in tested if row["label"] != row["prediction"]][:8]
    assert page.count('alt="gradcam map of ') == len(wrong) > 0


@pytest.mark.parametrize("name", ["segmenter", "joint"])
def test_masks_under_stress(
    cli: Cli, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    few = {ladder: stress.LADDERS[ladder] for ladder in ("zoom", "calipers")}
    monkeypatch.setattr(probes, "LADDERS", few)
    monkeypatch.setattr(probes, "SEVERITIES", (1, 5))
    further = ("shortcuts=true", "explain=occlusion") if name == "joint" else ()
    result = tmp_path / "result"
    arguments = ("stress=ultrasound", *further, "data.eval_batch_size=3", f"hydra.run.dir={result}", "--compare")
    assert cli(f"run={trained[name]}", *arguments) == (0, "")
    table, metrics = rows(result / "stress.csv"), read_summary(result).metrics
    assert len(table) == 5
    assert float(table[0]["dice"]) == pytest.approx(metrics["test/dice"], abs=1e-6)
    assert all(float(row["dice"]) >= 0 for row in table)
    assert ("accuracy" in table[0]) == (name == "joint")
    assert (result / "shortcuts.csv").exists() == ("test/occlusion_energy" in metrics) == (name == "joint")


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("run=null",), "run is not set: give the directory of a finished run"),
        (("run=/nowhere",), "run=/nowhere: no such folder"),
        (("run=.",), "no ended run: it has no summary.json"),
        (("data.image_size=96",), "data.image_size: the run's network has its own"),
        (("data=busi", "data.image_size=96"), "data.image_size: the run's network has its own"),
        (("data.subset=2",), "data.subset: belongs to other data; name them with data="),
        (("data.name=labels",), "data.name: belongs to other data"),
        (("split.seed=5",), "split.seed: belongs to another split; name it with split="),
        (("+data.imagesize=96",), "data.imagesize: belongs to other data"),
        (("data=busi", "+data.imagesize=96"), "data.imagesize"),
        (("+nothing=1",), "nothing"),
        (("nothing=1",), "nothing"),
        (("data=busi", "data.root=/nowhere"), "expected a dataset folder, found nothing"),
        (("data=labels",), "data=labels needs data.root=DIR"),
        (("data=labels", "data.root=ROOT"), "use data=busi"),
        (("data=nothing",), "data=nothing: no such option; choices: busi, folder, invalid_copies, labels, mix, "),
        (("split.manifest=/nowhere.json",), "no such file"),
        (("stress=sonar",), "stress=sonar: expected null or ultrasound"),
        (("explain=lime",), "explain=lime: expected null or gradcam or occlusion"),
        (("shortcuts=perhaps",), "shortcuts"),
        (("trainer.devices=2",), "trainer.devices=2: an evaluation takes 1"),
        (("trainer.max_epochs=3",), "trainer.max_epochs"),
        (("+trainer.max_epochs=3",), "trainer.max_epochs: an evaluation has no epochs"),
        (("trainer=smoke",), "model"),
        (("+trainer.limit_test_batches=1",), "trainer.limit_test_batches"),
        (("+logger.other={}",), "logger.other: no such tracker; expected wandb, or settings with _target_"),
        (("logger=wandb", "+logger.wandb.projekt=x"), "logger.wandb.projekt: unknown key"),
        (("data.eval_batch_size=0",), "data.eval_batch_size=0"),
        (("data=busi", "data.root=ROOT", "data.classes=[]"), "data.classes=[]"),
        (("data=busi", "data.root=ROOT", "data.name='a b'"), "data.name=a b: expected a name of at most 64 letters"),
        (("run=[1",), "run=[1"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    cli: Cli, trained: dict[str, Path], phantom_root: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    run = () if overrides[0].startswith("run=") else (f"run={trained['classifier']}",)
    given = [item.replace("ROOT", str(phantom_root)) for item in overrides]
    code, error = cli(*run, *given, f"hydra.run.dir={tmp_path / 'result'}")
    assert code == 2
    assert message in error and "\n" not in error
    made = tmp_path / "result"
    assert not made.exists()


def remove_checkpoint(run: Path) -> None:
    (run / "checkpoints/best.ckpt").unlink()


def pickled_checkpoint(run: Path) -> None:
    torch.save({"schema": 1, "state_dict": Path("x")}, run / "checkpoints/best.ckpt")


def cut_checkpoint(run: Path) -> None:
    path = run / "checkpoints/best.ckpt"
    path.write_bytes(path.read_bytes()[:1000])


def cut_config(run: Path) -> None:
    (run / "config.yaml").write_text("")


def odd_config(run: Path) -> None:
    (run / "config.yaml").write_bytes(b"data: [\xff")


def greedy_config(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(re.sub(r"(?m)^  cache_dir: .*$", "  cache_dir: /tmp/${oc.env:HOME}", path.read_text()))


def edit_summary(**changes: Any) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        content = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(content | changes))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "summary.json").unlink(), "it has no summary.json"),
        (lambda run: (run / "summary.json").write_text("{"), "it is cut or not JSON"),
        (edit_summary(status="failed", error="no memory"), "the run failed (no memory)"),
        (edit_summary(schema=99), "has schema 99, this version reads 1"),
        (edit_summary(task="poetry"), "task 'poetry'"),
        (remove_checkpoint, "best.ckpt is missing"),
        (pickled_checkpoint, "holds more than tensors and plain values"),
        (cut_checkpoint, "best.ckpt"),
        (cut_config, "config.yaml cannot be read (it has no group data); name the data with data= and split="),
        (odd_config, "config.yaml cannot be read"),
        (greedy_config, "the group data refers to something else by ${...}"),
        (edit_summary(task=["classification"]), "task must be a text"),
        (lambda run: (run / "config.yaml").unlink(), "config.yaml cannot be read"),
        (lambda run: (run / "split.json").unlink(), "split.json: no such file"),
    ],
)
def test_damaged_runs_are_one_line(
    cli: Cli, trained: dict[str, Path], tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    run = altered(trained["classifier"], tmp_path / "run")
    damage(run)
    code, error = cli(f"run={run}", f"hydra.run.dir={tmp_path / 'result'}")
    assert code == 2
    assert message in error and "\n" not in error
    assert not (tmp_path / "result").exists()


def test_what_a_run_cannot_have_is_refused(
    cli: Cli, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, message in (("explain=gradcam", "give a classifier"), ("shortcuts=true", "a run with classes")):
        code, error = cli(f"run={trained['segmenter']}", setting, f"hydra.run.dir={tmp_path / 'result'}")
        assert code == 2 and message in error
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    code, error = cli(f"run={trained['classifier']}", "explain=gradcam", f"hydra.run.dir={tmp_path / 'result'}")
    assert code == 2 and "pip install 'busi-lab[explain]'" in error
    assert not (tmp_path / "result").exists()


def test_a_result_is_not_overwritten(cli: Cli, trained: dict[str, Path], tmp_path: Path) -> None:
    run = altered(trained["classifier"], tmp_path / "run")
    before = (run / "summary.json").read_bytes()
    code, error = cli(f"run={run}", f"hydra.run.dir={run}")
    assert code == 2 and "holds a result; choose another hydra.run.dir" in error
    assert (run / "summary.json").read_bytes() == before


def test_failures_after_the_start_are_on_record(
    cli: Cli, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "with_columns", lambda rows, data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli(f"run={trained['classifier']}", f"hydra.run.dir={tmp_path / 'result'}")
    summary = read_summary(tmp_path / "result")
    assert (summary.status, summary.error) == ("failed", "ZeroDivisionError: division by zero")
    assert read_run(tmp_path / "result").predictions == []


# ----------------------------------------------------------------------------------------------- sweeps


def test_a_sweep_goes_on_after_a_failing_job_and_is_compared(
    cli: Cli, trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = f"run=/nowhere,{trained['classifier']},/nowhere2,{trained['joint']}"
    code, error = cli("-m", names, f"hydra.sweep.dir={tmp_path / 'sweep'}", "--compare")
    assert code == 2
    assert error.startswith("error: run=/nowhere: no such folder") and "; run=/nowhere2: no such folder" in error
    assert "\n" not in error
    for job, name in (("1", "classifier"), ("3", "joint")):
        assert rows(tmp_path / "sweep" / job / "predictions.csv") == rows(trained[name] / "predictions.csv")
    assert (tmp_path / "sweep/1/comparison/report.html").is_file()


def test_the_drop_is_printed_beside_the_source(
    cli: Cli, trained: dict[str, Path], phantom_root: Path, tmp_path: Path
) -> None:
    run, result = trained["classifier"], tmp_path / "result"
    other = relabel(phantom_root, [f"{name} ({i})" for name in BUSI.names for i in (1, 2, 3)], tmp_path / "other")
    data = ("data=labels", f"data.root={other}")
    assert cli(f"run={run}", *data, "--compare", f"hydra.run.dir={result}") == (0, "")
    table = rows(result / "comparison/table.csv")
    assert [(row["data"], row["test_images"]) for row in table] == [
        ("busi", str(len(rows(run / "predictions.csv")))),
        ("labels", "9"),
    ]
    page = (result / "comparison/report.html").read_text(encoding="utf-8")
    assert "custom_cnn on labels: against its own test images" in page


def test_a_source_without_a_test_is_named_in_place_of_a_drop(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, figures in (("tested", {"test/f1": 0.5}), ("untested", {})):
        source = asdict(Source(directory=f"/runs/{name}", data="busi", metrics=figures))
        _compare([altered(trained["classifier"], tmp_path / name, source=source)])
        printed = capsys.readouterr().out
        assert ("/runs/untested was not tested (test=false), so there is no figure" in printed) == (name == "untested")


def test_help_is_quick_because_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['busi-eval', '--compare', '--help']\n"
        "from busi_lab import evaluate\n"
        "try: evaluate.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules, 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for word in ("run: null", "flags: null", "stress: null", "shortcuts: false", "explain: null", "--compare", "wandb"):
        assert word in done.stdout
