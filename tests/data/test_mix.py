"""Several datasets as one: what its table says, what is refused, and one of them left out."""

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from busi_lab.data import mix
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.index import index_dataset
from busi_lab.data.manifest import read_manifest, write_manifest
from busi_lab.data.mix import mix_folder, parse_sources
from busi_lab.data.phantom import generate_phantoms
from busi_lab.data.splits import make_manifest
from busi_lab.errors import UserError
from busi_lab.run.export import _run_data
from busi_lab.run.own_data import own_data
from busi_lab.run_directory import read_run
from busi_lab.tasks import load_task
from tests.programs import call


@pytest.fixture
def sources(phantom_root: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Two datasets with a scan in common; the second has a table with patients."""
    other = generate_phantoms(tmp_path / "other", {"benign": 6, "malignant": 5, "normal": 4}, seed=9, height=96)
    for ending in ("", "_mask"):
        shutil.copy(phantom_root / f"benign/benign (1){ending}.png", other / f"benign/benign (1){ending}.png")
    rows = ["file,label,mask_file,patient,machine,spacing"]
    for path in sorted(other.rglob("*.png")):
        if "_mask" not in path.name:
            name = path.relative_to(other).as_posix()
            rows.append(f"{name},{path.parent.name},{name[:-4]}_mask.png,p{len(rows) // 2},GE,0.1x0.2")
    (other / "labels.csv").write_text("\n".join(rows))
    return [{"name": "north", "root": str(phantom_root)}, {"name": "south", "root": str(other)}]


def test_every_scan_keeps_what_was_known_of_it(sources: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = mix_folder(parse_sources(sources), tmp_path)
    assert mix_folder(parse_sources(sources), tmp_path) == folder, "written once"
    with (folder / "labels.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert len(rows) == 30 + 15
    south = rows["south/benign/benign (2).png"]
    assert (south["source"], south["machine"], south["patient"]) == ("south", "GE", "south p1")
    assert rows["north/benign/benign (2).png"]["patient"] == ""
    mixed, alone = index_dataset(folder), index_dataset(sources[1]["root"])
    by_name = {case.case_id: case for case in mixed.cases}
    for case in alone.cases:
        same = by_name[f"south/{case.case_id}"]
        assert (same.content_hash, same.spacing, same.label) == (case.content_hash, (0.1, 0.2), case.label)


def test_a_job_that_is_as_quick_gives_the_same_folder(
    sources: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = mix.new_folder

    @contextmanager
    def raced(folder: Path) -> Iterator[Path]:
        with plain(folder) as mine:
            with plain(folder) as others:
                (others / "labels.csv").touch()
            yield mine

    monkeypatch.setattr(mix, "new_folder", raced)
    folder = mix_folder(parse_sources(sources), tmp_path)
    assert [path.name for path in folder.iterdir()] == ["labels.csv"], "the other's"
    monkeypatch.setattr(mix, "new_folder", plain)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        mix_folder(parse_sources(sources), tmp_path / "file" / "below")


def test_another_table_makes_another_folder(sources: list[dict[str, Any]], tmp_path: Path) -> None:
    first = mix_folder(parse_sources(sources), tmp_path)
    table = Path(sources[1]["root"]) / "labels.csv"
    table.write_text(table.read_text().replace("GE", "Philips"))
    assert mix_folder(parse_sources(sources), tmp_path) != first


def test_one_dataset_is_left_out_with_its_near_copies(sources: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = mix_folder(parse_sources(sources), tmp_path)
    for fold, name in enumerate(("north", "south")):
        data = BusiDataModule(str(folder), 32, split={"protocol": "by_source", "fold": fold}, cache_dir=None)
        data.setup()
        manifest = data.manifest
        assert (manifest.folds, manifest.fold) == (2, fold)
        assert all(case_id.startswith(f"{name}/") for case_id in manifest.test)
        assert not any(case_id.startswith(f"{name}/") for case_id in (*manifest.train, *manifest.val))
        assert len(manifest.test) == (30, 15)[fold]
        assert data.leaked() == 0
        other = ("south", "north")[fold]
        assert f"{other}/benign/benign (1)" in manifest.excluded


def without(table: Path, *classes: str, unlabelled: int = 0) -> None:
    """Take the scans of some classes out of a table, and the labels of the first that are left."""
    head, *rows = table.read_text().splitlines()
    kept = [row.split(",") for row in rows if row.split(",")[1] not in classes]
    for row in kept[:unlabelled]:
        row[1] = ""
    table.write_text("\n".join([head, *(",".join(row) for row in kept)]))


def test_a_class_that_one_dataset_lacks_is_not_needed(sources: list[dict[str, Any]], tmp_path: Path) -> None:
    without(Path(sources[1]["root"]) / "labels.csv", "normal")
    folder = mix_folder(parse_sources(sources), tmp_path)
    learnt, tested = {}, {}
    for fold in (0, 1):
        data = BusiDataModule(str(folder), 32, split={"protocol": "by_source", "fold": fold}, cache_dir=None)
        data.setup()
        labels = {case.case_id: case.label for case in data.index.cases}
        tested[fold] = {labels[case_id] for case_id in data.manifest.test}
        for ids in (data.manifest.train, data.manifest.val):
            learnt.setdefault(fold, []).append({labels[case_id] for case_id in ids})
        write_manifest(tmp_path / "split.json", data.full_manifest)
        assert read_manifest(tmp_path / "split.json", data.index) == data.full_manifest
    two, three = {"benign", "malignant"}, {"benign", "malignant", "normal"}
    assert learnt == {0: [two, two], 1: [three, three]}
    assert tested == {0: three, 1: two}


def test_the_tested_dataset_gives_no_scan_without_its_label_either(
    sources: list[dict[str, Any]], tmp_path: Path
) -> None:
    without(Path(sources[1]["root"]) / "labels.csv", unlabelled=4)
    folder = mix_folder(parse_sources(sources), tmp_path)
    found = []
    for fold in (0, 1):
        split = {"protocol": "by_source", "fold": fold}
        data = BusiDataModule(str(folder), 32, split=split, cache_dir=None, masks=False, unlabelled="rest")
        data.setup()
        found.append({case_id.split("/")[0] for case_id in data.unlabelled})
    assert found == [{"south"}, set()]


def test_a_number_means_one_dataset_for_every_task(sources: list[dict[str, Any]], tmp_path: Path) -> None:
    without(Path(sources[1]["root"]) / "labels.csv", unlabelled=99)
    index = index_dataset(mix_folder(parse_sources(sources), tmp_path))
    unusable = {case.case_id for case in index.cases if not case.label}
    with pytest.raises(UserError, match=r"no scan of south can be used, which split\.fold=1 tests"):
        make_manifest(index, "by_source", fold=1, unusable=unusable)
    with pytest.raises(UserError, match=r"no scan of the others than north \(split\.fold=0\) can be learnt from"):
        make_manifest(index, "by_source", fold=0, unusable=unusable)


def test_it_trains_and_its_predictions_name_the_dataset(
    sources: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without(Path(sources[1]["root"]) / "labels.csv", "normal")
    listed = f"data.sources={json.dumps(sources)}".replace('"name"', "name").replace('"root"', "root")
    settings = ("data=mix", listed, "split=by_source", "split.fold=0", "trainer=smoke", "data.image_size=32")
    run = tmp_path / "run"
    assert call("train", *settings, "model=custom_cnn", "logger=none", f"hydra.run.dir={run}") == 0
    found = read_run(run)
    assert found.summary.split.protocol == "by_source"
    with (run / "predictions.csv").open(newline="") as file:
        assert {row["source"] for row in csv.DictReader(file)} == {"north"}
    assert "no normal scans, which are tested; data.classes=[benign,malignant] leaves them" in capsys.readouterr().out
    saved, summary = OmegaConf.load(run / "config.yaml"), found.summary
    saved.data.sources[1].root = "elsewhere/other"  # as typed in another folder
    OmegaConf.save(saved, run / "config.yaml")
    assert [item.root for item in own_data(run, summary).sources] == [str(Path(item["root"])) for item in sources]
    task, _ = load_task(run)
    for root in (None, Path(str(summary.data.root))):
        data = _run_data(run, summary, task, root, required=True)
        assert data is not None and data.manifest.val == tuple(json.loads((run / "split.json").read_text())["val"])


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "expected two datasets at least, found 0"),
        (["busi", "busbra"], r"data\.sources\[0\]=busi: expected \{name: NAME, root: DIR\}"),
        ([{"name": "a b", "root": "/x"}], r"data\.sources\[0\]\.name=a b: expected letters"),
        ([{"name": "a"}], r"data\.sources\[0\]\.root=None: expected the folder"),
        ([{"name": "a", "rot": "/x"}], r"unknown key rot; did you mean root"),
        ([{"name": "a", "root": "/x"}, {"name": "A", "root": "/y"}], "the name a stands twice"),
    ],
)
def test_what_is_no_list_of_datasets_is_refused(items: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_sources(items)


def test_datasets_of_other_classes_are_refused(phantom_root: Path, cysts: Path, tmp_path: Path) -> None:
    items = [{"name": "ours", "root": str(phantom_root)}, {"name": "cysts", "root": str(cysts)}]
    with pytest.raises(UserError, match=r"cysts has the classes cyst, solid, and ours has benign, malignant, normal"):
        mix_folder(parse_sources(items), tmp_path)


def test_one_dataset_alone_cannot_be_left_out(phantom_root: Path) -> None:
    data = BusiDataModule(str(phantom_root), 32, split={"protocol": "by_source"}, cache_dir=None)
    with pytest.raises(UserError, match="expected scans of two datasets at least, each with its name in the column"):
        data.setup()
