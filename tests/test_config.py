"""Shipped configurations, the schema, and what it refuses."""

import inspect
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import OmegaConf

from busi_lab.classes import BUSI
from busi_lab.config import (
    AugmentConfig,
    EvalConfig,
    RunConfig,
    SchedulerConfig,
    config_dir,
    parse_config,
    parse_eval_config,
)
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.phantom import generate_phantoms
from busi_lab.data.splits import make_manifest
from busi_lab.errors import UserError
from busi_lab.report.results.published import PUBLISHED, Recipe
from busi_lab.tracking.settings import WandbSettings

CONF = config_dir()
EXPERIMENTS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix("")) for path in CONF.glob("experiment/**/*.yaml")
)
GROUPS = [
    *("data", "split", "variant", "augment", "model", "task", "optim", "scheduler", "callbacks", "logger", "trainer"),
    "debug",
]
CHOICES = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
CHOICES += [f"split=fold/{fold}" for fold in range(5)]


def load(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*overrides, "run_dir=/nowhere"])
    return parse_config(OmegaConf.create(OmegaConf.to_container(config, resolve=True)))


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BUSI_ROOT", "BUSI_LAB_CACHE", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_left_out_means_what_the_files_say(bare_environment: None) -> None:
    """One set of defaults: the schema fills older configurations and checkpoints with what ``conf`` says today."""
    composed, bare = load(), RunConfig(run_dir="/nowhere")
    composed.model.own = {}  # those of the network: tests/models/test_registry.py
    composed.augment = load("augment=none").augment  # a file of augmentations lists what it does; the rest is off
    for group in ("task", "trainer", "callbacks", "logger"):  # arguments of classes: see below
        setattr(composed, group, {})
    assert composed == bare
    with initialize_config_dir(str(CONF), version_base="1.3"):
        evaluation = parse_eval_config(compose("evaluate", ["run_dir=/nowhere", "run=a"]))
    assert evaluation.trainer.pop("accelerator") == "auto"
    assert evaluation == replace(EvalConfig("/nowhere", "a"), trainer=evaluation.trainer)
    for scheduler in ("cosine", "onecycle", "plateau"):
        assert load(f"scheduler={scheduler}").scheduler == SchedulerConfig(scheduler)


def test_a_variant_with_flips_alone_has_nothing_else(bare_environment: None) -> None:
    """Every kind of change is off; ``crop_ratio`` and ``erase_share`` say how, not whether."""
    found = load("variant=flips_alone", "augment=trivial").augment
    how = {"crop_ratio": found.crop_ratio, "erase_share": found.erase_share}
    assert found == AugmentConfig(horizontal_flip=True, **how)


def test_a_variant_names_itself_and_all_that_it_changes() -> None:
    """One that changes augmentations says of every kind whether it is on."""
    switches = {item.name for item in fields(AugmentConfig)} - {"crop_ratio", "erase_share"}
    for path in (CONF / "variant").glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        assert content.pop("variant") == (None if path.stem == "none" else path.stem)
        assert "augment" not in content or content["augment"].keys() == switches


def test_the_defaults_of_classes_are_those_of_the_files(bare_environment: None) -> None:
    pairs: list[tuple[Any, dict[str, Any]]] = [
        (get_class(load(f"task={path.stem}").task["_target_"]), load(f"task={path.stem}").task)
        for path in (CONF / "task").glob("*.yaml")
    ]
    composed = load("callbacks=default", "data=phantom")
    pairs += [(get_class(item["_target_"]), item) for item in composed.callbacks.values() if item]
    pairs += [(generate_phantoms, composed.data.phantom or {}), (WandbSettings, composed.logger["wandb"] or {})]
    of_batches = {name: value for name, value in vars(composed.data).items() if name != "labels"}  # which is a file
    pairs += [(BusiDataModule, of_batches), (make_manifest, vars(composed.split))]
    for target, settings in pairs:
        for name, item in inspect.signature(target).parameters.items():
            if name in settings and item.default is not item.empty and repr(item.default) != "<factory>":
                expected = () if settings[name] is None and name == "exclude" else settings[name]
                assert item.default == expected, (target, name)


@cache
def shipped(experiment: str) -> RunConfig:
    return load(f"experiment={experiment}")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_valid_and_carries_its_own_name(experiment: str) -> None:
    assert shipped(experiment).name == experiment


def swept(name: str) -> list[str]:
    content = yaml.safe_load((CONF / f"sweep/{name}.yaml").read_text(encoding="utf-8"))
    experiments: list[str] = content["hydra"]["sweeper"]["params"]["experiment"].split(",")
    return experiments


def test_the_smoke_sweep_runs_every_experiment_of_ours_and_every_network() -> None:
    chosen = swept("smoke")
    own = {name for name in EXPERIMENTS if not name.startswith("published/")}
    assert own <= {*chosen} <= {*EXPERIMENTS} and len(chosen) == len({*chosen})
    assert {shipped(name).model.name for name in chosen} == {shipped(name).model.name for name in EXPERIMENTS}
    config = load("sweep=smoke", "experiment=paper/unet")
    assert (config.data.name, config.data.subset, config.trainer["max_epochs"]) == ("phantom", 4, 2)
    assert (config.model.weights, config.logger) == ("none", {})


def test_the_sweeps_of_published_systems_hold_all_of_them() -> None:
    published = sorted(name for name in EXPERIMENTS if name.startswith("published/"))
    assert sorted(swept("published_all")) == published
    kinds = {
        "classifiers": ("classification", "localization"),
        "segmentation": ("segmentation",),
        "joint": ("multitask",),
    }
    for sweep, tasks in kinds.items():
        expected = [name for name in published if get_class(shipped(name).task["_target_"]).kind in tasks]
        assert sorted(swept(f"published_{sweep}")) == expected


def test_reports_know_the_figure_and_the_recipe_of_every_published_experiment() -> None:
    published = [name for name in EXPERIMENTS if name.startswith("published/")]
    assert set(published) <= set(PUBLISHED)
    for name in {*PUBLISHED} & {*EXPERIMENTS}:
        config, result = shipped(name), PUBLISHED[name]
        recipe = (config.model.weights, config.data.image_size, config.trainer["max_epochs"])
        stops_early = "early_stopping" in config.callbacks
        assert Recipe(*recipe, stops_early, result.recipe.missing, result.recipe.cut) == result.recipe, name
        assert get_class(config.task["_target_"]).kind == result.task, name
        if result.task != "segmentation":
            assert tuple(config.data.classes or BUSI.names) == result.classes, name


@pytest.mark.parametrize("choice", CHOICES)
def test_every_group_choice_is_valid(choice: str) -> None:
    load(choice)


@pytest.mark.parametrize("model", ["mobilenet", "vgg16", "vgg16_frozen", "inception_v3", "custom_cnn"])
def test_paper_experiments_follow_the_paper(model: str) -> None:
    config = load(f"experiment=paper/{model}")
    assert (config.trainer["max_epochs"], config.data.batch_size, config.optim.name) == (50, 4, "adam")
    assert config.data.balanced_sampling
    assert config.split.protocol == "published"
    augment = config.augment
    assert (augment.rotation, augment.shift, augment.shear, augment.zoom) == (5, 0.1, 0.05, 0.05)
    assert augment.brightness == [1.0, 1.4]
    assert augment.horizontal_flip
    assert config.model.weights == ("none" if model == "custom_cnn" else "imagenet")
    assert config.model.freeze == ("backbone" if model == "vgg16_frozen" else "none")


def test_the_command_line_wins_over_smoke_and_smoke_over_an_experiment() -> None:
    assert load("experiment=paper/vgg16", "trainer=smoke").trainer["max_epochs"] == 2
    assert load("experiment=paper/vgg16", "trainer=smoke").model.weights == "none"
    named = load("experiment=paper/vgg16", "trainer=smoke", "trainer.max_epochs=7", "model.weights=imagenet")
    assert (named.trainer["max_epochs"], named.model.weights) == (7, "imagenet")
    assert load("experiment=paper/mobilenet", "split=holdout").split.protocol == "holdout"
    for trainer in ("auto", "cpu", "gpu"):
        assert load("experiment=paper/vgg16", f"trainer={trainer}").trainer["max_epochs"] == 50


def test_overfitting_does_without_augmentation_whatever_the_experiment_sets() -> None:
    assert load("experiment=published/aumente2025/nnunet", "debug=overfit").augment == load("augment=none").augment


def test_seed_zero_is_a_seed() -> None:
    config = load("seed=0", "split.seed=0")
    assert (config.seed, config.split.seed) == (0, 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+data.imagesize=96", r"data\.imagesize.*known keys: name, root, layout, image_size"),
        ("+nonsense=1", "nonsense"),
        ("data.image_size=large", r"data\.image_size"),
        ("data.image_size=16", "expected 32, where backbones keep one position, to 4096"),
        ("data.batch_size=0", r"data\.batch_size=0: expected more than 0"),
        ("trainer.max_epochs=-1", r"trainer\.max_epochs=-1: expected a whole number of at least 1"),
        ("trainer.max_epochs=0", "at least 1"),
        ("optim.lr=0", r"optim\.lr=0"),
        ("optim.weight_decay=-1", r"optim\.weight_decay"),
        ("seed=-1", "seed=-1: expected 0 or more"),
        ("split.test_fraction=1.5", r"split\.test_fraction=1\.5"),
        ("split.val_fraction=0", r"split\.val_fraction"),
        ("split=published split.test_fraction=0.5", "published is fixed at 0.2"),
        ("model.in_chans=2", r"model\.in_chans=2: expected 1 or 3"),
        ("model.freeze=head", r"model\.freeze=head: expected none, backbone or a list of layers"),
        ("model.freeze=[]", r"model\.freeze=\[\]: expected none, backbone or a list"),
        ("model.unfreeze_epoch=2", r"model\.unfreeze_epoch=2: expected 1 or more beside model\.freeze"),
        ("model.freeze=backbone model.unfreeze_epoch=0", r"model\.unfreeze_epoch=0: expected 1 or more"),
        ("data.layout=flat", r"data\.layout=flat for data\.name=busi: expected auto; data=folder means folder"),
        ("data=mix data.layout=folder", r"data\.layout beside data\.sources: it belongs to one dataset"),
        ("data=phantom data.layout=folder", r"data\.layout=folder for data\.name=phantom"),
        ("optim.layer_decay=1.5", r"optim\.layer_decay=1\.5: expected null or a factor above 0"),
        ("optim.layer_decay=0.5 optim.backbone_lr=1e-5", r"optim\.backbone_lr beside optim\.layer_decay"),
        ("ema=1", r"ema=1\.0: expected null or a decay between 0 and 1, as 0\.999"),
        ("scheduler=warmup_cosine scheduler.final=1", r"scheduler\.final=1\.0: expected a share of at least 0"),
        ("model.dropout=1", r"model\.dropout"),
        ("task.label_smoothing=2", r"task\.label_smoothing"),
        ("task.monitor_mode=up", r"task\.monitor_mode=up: expected max or min"),
        ("augment.rotation=-5", r"augment\.rotation"),
        ("augment.brightness=[1.4,1.0]", r"augment\.brightness"),
        ("augment=trivial augment.crop=[0,1]", r"augment\.crop=\[0\.0, 1\.0\]: expected \[lowest, highest\] share"),
        ("augment=trivial augment.crop_ratio=[2,1]", r"augment\.crop_ratio=\[2\.0, 1\.0\]: expected \[lowest, "),
        ("augment=trivial augment.erase=2", r"augment\.erase=2\.0: expected a probability from 0 to 1"),
        ("data.subset=0", r"data\.subset=0"),
    ],
)
def test_wrong_values_name_the_key(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(*override.split(" "))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["model=vgg", "split=publishd", "data.imagesize=96", "optim=adamm"])
def test_typos_are_errors_of_hydra(override: str) -> None:
    with pytest.raises(HydraException):
        load(override)


def test_a_users_own_experiment_file(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    own: dict[str, Any] = {"name": "mine", "model": {"backbone": "resnet18"}}
    text = "# @package _global_\n" + OmegaConf.to_yaml(OmegaConf.create(own))
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    config = load("experiment=mine", f"hydra.searchpath=[file://{tmp_path}]")
    assert (config.name, config.model.flat()["backbone"]) == ("mine", "resnet18")
