"""A network, a task and a tracker of a user's own package, from training to what is said where it is missing."""

import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from busi_lab.errors import UserError
from busi_lab.models import registry
from busi_lab.run.resume import _refuse_foreign
from busi_lab.run_directory import read_summary
from busi_lab.tasks import load_task
from busi_lab.tasks.loading import task_classes
from tests.extensions import install, recipe
from tests.programs import call, outcome

PACKAGE = (
    recipe("python").replace('"small"', '"ward_net"')
    + """
from busi_lab.tasks import ClassificationTask
from busi_lab.tracking.protocol import Tracker


class WardTask(ClassificationTask):
    kind = "ward"


class Notes(Tracker):
    def epoch(self, row):
        (self.job.directory / "notes.txt").write_text(str(row["epoch"]))
"""
)
CONF = {
    "model/ward_net": recipe("yaml").replace("small", "ward_net"),
    "task/ward": "defaults:\n  - classification\n_target_: ward_package.WardTask\n",
}


def test_a_package_of_ones_own(phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    install(package, monkeypatch, "ward_package", PACKAGE, "busi_lab.models", "ward_net")
    with (package / "ward_package-1.0.dist-info/entry_points.txt").open("a") as file:
        file.write("[busi_lab.tasks]\nward = ward_package:WardTask\n[busi_lab.trackers]\nnotes = ward_package:Notes\n")
    for name, text in CONF.items():
        path = tmp_path / f"conf/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run = tmp_path / "run"
    settings = (f"data.root={phantom_root}", "trainer=smoke", "data.image_size=32", "logger=none", "+logger.notes={}")
    chosen = ("model=ward_net", "model.width=6", "task=ward", f"hydra.run.dir={run}")
    assert call("train", "--config-dir", str(tmp_path / "conf"), *settings, *chosen) == 0
    summary = read_summary(run)
    assert (summary.task, summary.model, (run / "notes.txt").read_text()) == ("ward", "ward_net", "1")
    task, _ = load_task(run)
    assert task.network.head.in_features == 6
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert content["packages"] == {"task": "ward_package", "model": "ward_package"}

    saved = OmegaConf.load(run / "config.yaml")
    _refuse_foreign(saved, run, [])  # an installed package is trusted as far as its entry points go

    monkeypatch.setattr(sys, "path", [item for item in sys.path if item != str(package)])
    monkeypatch.delitem(registry._NETWORKS, "ward_net")
    monkeypatch.delitem(sys.modules, "ward_package")
    install_it = "; install the package ward_package, with which the run was made"
    with pytest.raises(UserError) as caught:
        load_task(run)
    assert str(caught.value) == f"{run}: task 'ward', expected {', '.join(task_classes())}{install_it}"
    with pytest.raises(UserError, match=r"names ward_package\.WardTask, which is neither of busi_lab"):
        _refuse_foreign(saved, run, [])
    text = (run / "summary.json").read_text().replace('"task": "ward"', '"task": "classification"')
    (run / "summary.json").write_text(text)
    code, error = outcome("predict", "--run", str(run), str(phantom_root), "--json", "-")
    assert code == 2
    assert "model.name=ward_net: no such network; choices: " in error
    assert error.endswith(install_it)
