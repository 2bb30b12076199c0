"""What a sweep is going to do: names of its jobs and of its directory, and what may not be combined."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from busi_lab.config import config_dir
from busi_lab.errors import UserError
from busi_lab.sweep.plan import (
    Job,
    _refuse_another_run,
    _refuse_another_split,
    _refuse_narrowing,
    directory_name,
    job_names,
    of_the_jobs,
    refuse_wrong,
)
from tests.test_config import load

OLDER = Path(__file__).with_name("older_job.yaml")
GOLDEN = Path(__file__).parents[1] / "golden/runs"
GOLDEN_COMMAND = (
    *("trainer=cpu", "trainer.max_epochs=4", "model.weights=none", "data.image_size=32", "data.batch_size=4"),
    *("optim=adamw", "optim.lr=1e-3", "logger=csv", "model.backbone=test_efficientnet", "model.dropout=0.3"),
    "scheduler=cosine",
)


def test_jobs_are_named_by_what_sets_them_apart() -> None:
    common = "trainer.max_epochs=3"
    jobs = [[f"experiment=paper/{name}", f"seed={seed}", common] for name in ("vgg16", "mobilenet") for seed in (0, 1)]
    names = job_names(jobs, {"experiment", "seed"})
    assert names == ["paper-vgg16-seed0", "paper-vgg16-seed1", "paper-mobilenet-seed0", "paper-mobilenet-seed1"]
    assert job_names([["seed=0"]], ()) == ["job"]
    assert job_names(jobs[:1], {"experiment", "seed"}) == names[:1]  # a batch of its own, the same name
    for values in (["a='x, y=1'", "a='x; y=1'"], ["a=[1,2]", "a=[1;2]"]):
        odd = job_names([[value] for value in values], {"a"})
        assert len(set(odd)) == 2
        assert all(not set("=,/' ") & set(name) for name in odd)
    both = job_names([["+a.x=1", "+b.x=2"], ["+a.x=2", "+b.x=1"]], {"a.x", "b.x"})
    assert len(set(both)) == 2


def test_the_sweep_over_protocols_has_a_job_for_each_and_for_each_fold() -> None:
    content = yaml.safe_load((config_dir() / "sweep/protocols.yaml").read_text())
    values = content["hydra"]["sweeper"]["params"]["split"].split(",")
    whole = ["published", "holdout", "grouped_holdout", "curated"]
    assert job_names([[f"split={value}"] for value in values], {"split"}) == [*whole, *(f"fold-{n}" for n in range(5))]
    for fold, value in enumerate(values[len(whole) :]):
        assert load(f"split={value}").split == load("split=grouped_kfold", f"split.fold={fold}").split


def test_a_job_of_an_older_version_names_the_keys_of_all_networks(tmp_path: Path) -> None:
    later = {"data": {"layout": "auto"}, "optim": {"layer_decay": None}, "task": {"refine": "none"}}
    model = {"name": "custom_cnn", "dropout": 0.5, "unfreeze_epoch": None, "drop_path": 0.0}
    job = Job(tmp_path, (), OmegaConf.create({"run_dir": "", "model": model, **later}))
    older = {"run_dir": "", "model": {"name": "custom_cnn", "backbone": None, "dropout": 0.5}}
    OmegaConf.save(OmegaConf.create(older), tmp_path / "config.yaml")
    _refuse_another_run(job)
    OmegaConf.save(OmegaConf.create({**older, "model": {"name": "timm", "dropout": 0.5}}), tmp_path / "config.yaml")
    with pytest.raises(UserError, match="holds a run with another model"):
        _refuse_another_run(job)


@pytest.mark.parametrize(
    ("saved", "typed"),
    [
        (OLDER, ("experiment=paper/unet_smp", "logger=none")),
        (GOLDEN / "finished-classification/config.yaml", GOLDEN_COMMAND),
    ],
)
def test_a_sweep_that_an_older_version_began_goes_on(saved: Path, typed: tuple[str, ...], tmp_path: Path) -> None:
    """What is compared is a whole configuration as that version has composed it, and as this one does."""
    shutil.copy(saved, tmp_path / "config.yaml")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [*typed, f"run_dir={tmp_path}", "data.root=/elsewhere"])
        other = compose("train", [*typed, f"run_dir={tmp_path}", "data.root=/elsewhere", "data.annotated=0.5"])
        average = compose("train", [*typed, f"run_dir={tmp_path}", "data.root=/elsewhere", "ema=0.9"])
    _refuse_another_run(Job(tmp_path, (), config))
    with pytest.raises(UserError, match="holds a run with another data"):
        _refuse_another_run(Job(tmp_path, (), other))
    with pytest.raises(UserError, match="holds a run with another ema"):
        _refuse_another_run(Job(tmp_path, (), average))


def test_wrong_jobs_are_named_but_for_those_that_only_hydra_can_resolve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        whole = compose("train", ["model=custom_cnn", "run_dir=/nowhere"])
    right, unknown, wrong = (Job(tmp_path / name, (), whole.copy()) for name in ("right", "unknown", "wrong"))
    unknown.config.seed = "${hydra:job.num}"
    refuse_wrong([right, unknown])  # whether or not Hydra has set what it refers to
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": {"job": {"num": None}}}))
    refuse_wrong([right, unknown])
    wrong.config.optim.lr = -1
    with pytest.raises(UserError, match=r"optim.lr=-1.0: expected more than 0 \(job wrong; 1 of 3 jobs is wrong"):
        refuse_wrong([right, wrong, unknown])
    assert OmegaConf.is_interpolation(unknown.config, "seed")


def test_a_sweeps_directory_follows_from_its_command() -> None:
    first = directory_name(["sweep=paper_classifiers", "seed=1"])
    assert first == directory_name(["seed=1", "sweep=paper_classifiers"])
    assert first.startswith("paper_classifiers-")
    assert first != directory_name(["sweep=paper_classifiers", "seed=2"])


def test_folds_of_another_version_are_not_continued(tmp_path: Path) -> None:
    of = {name: OmegaConf.create({"split": {"protocol": name}}) for name in ("grouped_kfold", "holdout")}
    jobs = [Job(tmp_path / f"{n}", (), of["grouped_kfold"]) for n in range(2)]
    _refuse_another_split(jobs)
    for job in jobs:
        job.directory.mkdir()
    (jobs[0].directory / "split.json").write_text("{}")  # the first version did not say it
    with pytest.raises(UserError, match=r"0 was split by another version of split=grouped_kfold, and 1 would be"):
        _refuse_another_split(jobs)
    _refuse_another_split(jobs[:1])  # nothing is left to be split
    (jobs[0].directory / "split.json").write_text('{"version": 2}')
    _refuse_another_split(jobs)
    (jobs[0].directory / "split.json").write_text('{"version": 1}')
    _refuse_another_split([jobs[0], Job(tmp_path / "2", (), of["holdout"])])


def hydra_node(*typed: str) -> Any:
    params = {"experiment": "a,b", "split": "grouped_kfold", "split.fold": "0,1,2,3,4", "seed": "0"}
    return OmegaConf.create({"sweeper": {"params": params}, "overrides": {"task": list(typed)}})


@pytest.mark.parametrize("typed", ["split=published", "seed=3", "seed=0,1", "split.fold=0,1", "split=fold/2"])
def test_one_value_may_replace_the_only_one_of_a_sweep(typed: str) -> None:
    _refuse_narrowing(hydra_node(typed))


@pytest.mark.parametrize("typed", ["experiment=a", "split.fold=2"])
def test_one_value_of_what_a_sweep_varies_is_refused(typed: str) -> None:
    with pytest.raises(UserError, match=f"^{typed}: the chosen sweep varies "):
        _refuse_narrowing(hydra_node(typed))


def test_folds_drop_out_where_another_split_is_chosen() -> None:
    def jobs(split: str) -> list[list[str]]:
        return [[f"experiment={name}", f"split={split}", f"split.fold={fold}"] for name in "ab" for fold in range(5)]

    once = [("experiment=a", "split=published"), ("experiment=b", "split=published")]
    assert list(dict.fromkeys(of_the_jobs(hydra_node("split=published"), jobs("published")))) == once
    kept = [tuple(job) for job in jobs("grouped_kfold")]
    assert of_the_jobs(hydra_node("split=grouped_kfold"), jobs("grouped_kfold")) == kept
    assert of_the_jobs(hydra_node("seed=1"), jobs("grouped_kfold")) == kept
    typed = [tuple(job) for job in jobs("published")]
    assert of_the_jobs(hydra_node("split=published", "split.fold=0,1"), jobs("published")) == typed  # as typed
