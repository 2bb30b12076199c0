"""The configuration that we own: its keys, types and rules, checked before any data is touched."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from busi_lab.checking import check_fractions, check_nonnegative, check_positive, checked, whole_keys, write_whole
from busi_lab.errors import UserError
from busi_lab.exported.sessions import BACKENDS
from busi_lab.suggestions import one_of

LATER_OF_TASKS: dict[str, Any] = {
    **{"class_focal_gamma": 0.0, "refine": "none", "class_loss": "cross_entropy"},
    **{"mixup": 0.0, "cutmix": 0.0, "views": "none"},
    **{"semi": "none", "semi_weight": 1.0, "semi_threshold": 0.9, "semi_ramp": 0.3},
    **{"teacher": None, "teacher_weight": 1.0, "teacher_temperature": 2.0},
}
"""Options that tasks were given later, with the values that older configurations mean."""

LATER_OF_NETWORKS: dict[str, Any] = {"drop_path": 0.0, "deep_supervision": False, "standardize": False}
"""The same of networks."""

MAX_IMAGE_SIZE = 4096  # pixels; a network for more would take the memory of any machine
Dict = dict[str, Any]
C = TypeVar("C", "RunConfig", "EvalConfig")


def config_dir() -> Path:
    """The folder of shipped configurations: inside the installed package, or the checkout's ``conf``."""
    installed = Path(__file__).resolve().parent / "conf"
    return installed if installed.is_dir() else installed.parents[1] / "conf"


@dataclass
class DataConfig:
    """Group ``data``: see :class:`busi_lab.data.datamodule.BusiDataModule`; ``name`` is what reports call the data.

    ``roi`` and what begins with it: see :mod:`busi_lab.run.first_stage`.
    """

    name: str = "busi"
    root: str | None = None
    layout: str = "auto"
    image_size: int = 224
    batch_size: int = 4
    eval_batch_size: int = 32
    balanced_sampling: bool = True
    subset: int | None = None
    annotated: float = 1.0
    epoch_images: int | None = None
    classes: list[str] | None = None
    lesion_values: list[int | str] | None = None
    num_workers: int | None = None
    cache_dir: str | None = "auto"
    labels: str | None = None
    label_map: Dict | None = None
    copies_before_split: int = 0
    sources: list[Any] | None = None
    phantom: Dict | None = None
    roi: str | None = None
    roi_mode: str = "crop"
    roi_margin: float = 0.1


@dataclass
class SplitConfig:
    """Group ``split``: see :func:`busi_lab.data.splits.make_manifest`."""

    protocol: str = "holdout"
    seed: int = 0
    fold: int = 0
    folds: int = 5
    test_fraction: float = 0.2
    val_fraction: float = 0.1
    manifest: str | None = None
    groups: str | None = None
    exclude: str | None = None
    choose_on_test: bool = False


@dataclass
class AugmentConfig:
    """Group ``augment``: see :class:`busi_lab.data.transforms.Augmentation`."""

    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    brightness: list[float] | None = None
    horizontal_flip: bool = False
    contrast: float = 0.0
    gamma: float = 0.0
    speckle: float = 0.0
    blur: float = 0.0
    elastic: float = 0.0
    crop: list[float] | None = None
    crop_ratio: list[float] = field(default_factory=lambda: [0.75, 1.3333])
    trivial: bool = False
    erase: float = 0.0
    erase_share: list[float] = field(default_factory=lambda: [0.02, 0.2])


@dataclass
class NetworkSettings:
    """What every network is configured with; one with further settings has a subclass.

    Attributes:
        name: of the network, as it is registered (:mod:`busi_lab.models.registry`).
        weights: ``imagenet``, ``none``, a run directory, or the path of a checkpoint or of a state dict.
        weights_data: what these weights were trained on, for the record; a run's own record says it by itself.
        in_chans: 1 or 3.
        dropout: probability before the last layer.
        freeze: ``none``; ``backbone``, whose weights and batch-norm statistics then stay; or a list of layers.
        unfreeze_epoch: first epoch, from 0, in which everything is trained; None for never.
        standardize: whether each scan is brought to mean 0 and standard deviation 1.
    """

    name: str = "timm"
    weights: str = "imagenet"
    weights_data: str | None = None
    in_chans: int = 3
    dropout: float = 0.0
    freeze: Any = "none"
    unfreeze_epoch: int | None = None
    standardize: bool = False

    @property
    def label(self) -> str:
        """The network in a word, for people and ``summary.json``."""
        return self.name

    @property
    def timm_backbone(self) -> str | None:
        """Timm's name of the backbone, of which BUSI_WEIGHTS may hold ImageNet weights; None without one."""
        return None


@dataclass
class ModelConfig(NetworkSettings):
    """Group ``model``: what every network takes, and in ``own`` the other keys, which its settings check."""

    own: Dict = field(default_factory=dict)

    def flat(self) -> Dict:
        """The group as it is written."""
        return {**{item.name: getattr(self, item.name) for item in fields(NetworkSettings)}, **self.own}


@dataclass
class OptimConfig:
    """Group ``optim``: see :class:`busi_lab.tasks.base.BaseTask`."""

    name: str = "adam"
    lr: float = 1e-4
    weight_decay: float = 0.0
    backbone_lr: float | None = None
    layer_decay: float | None = None


@dataclass
class SchedulerConfig:
    """Group ``scheduler``: see :class:`busi_lab.tasks.base.BaseTask`."""

    name: str = "none"
    warmup_fraction: float = 0.3
    factor: float = 0.3
    patience: int = 5
    final: float = 0.0


@dataclass
class SweepConfig:
    """How a multirun goes: see :mod:`busi_lab.sweep`."""

    max_failures: int | None = None
    grace: float = 120.0


@dataclass
class RunConfig:
    """One run. ``task``, ``trainer``, ``callbacks`` and ``logger`` hold arguments of the classes they name."""

    run_dir: str
    name: str | None = None
    variant: str | None = None
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    task: Dict = field(default_factory=dict)
    trainer: Dict = field(default_factory=dict)
    callbacks: dict[str, Dict | None] = field(default_factory=dict)
    logger: dict[str, Dict | None] = field(default_factory=dict)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    ema: float | None = None
    compile: bool = False
    test: bool = True
    trust: list[str] = field(default_factory=list)
    resume: str | None = None
    command: str | None = None


@dataclass
class EvalConfig:
    """One evaluation of a finished run: see :func:`busi_lab.evaluation.evaluate`."""

    run_dir: str
    run: str
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=lambda: SplitConfig(protocol="all"))
    trainer: Dict = field(default_factory=dict)
    logger: dict[str, Dict | None] = field(default_factory=dict)
    flags: str | None = None
    stress: str | None = None
    shortcuts: bool = False
    explain: str | None = None
    backend: str = "auto"
    command: str | None = None


def with_later_keys(content: Mapping[str, Any]) -> Dict:
    """A saved configuration, and the keys that its version did not know, with what they mean today where left out."""
    filled = dict(content)
    for group, later in (("task", LATER_OF_TASKS), ("model", LATER_OF_NETWORKS)):
        if isinstance(own := filled.get(group, {}), Mapping):
            filled[group] = {**later, **own}
    for item in fields(RunConfig):
        default: Any = item.default_factory
        if isinstance(default, type) and is_dataclass(default) and isinstance(filled.get(item.name, {}), Mapping):
            filled[item.name] = {**vars(default()), **filled.get(item.name, {})}
    return filled


def may_change_on_resume(override: str) -> bool:
    """Whether an override of the command line may be given to a run that is continued."""
    group, _, rest = override.lstrip("+~").split("=", 1)[0].partition(".")
    return group in ("resume", "trust", "trainer", "logger", "hydra") or (
        group == "data" and rest in ("root", "labels", "num_workers", "cache_dir")
    )


def parse_config(config: DictConfig) -> RunConfig:
    """Check a composed configuration against the known keys, types and rules.

    Its groups ``launcher`` and ``search`` are not looked at: where jobs run and who proposes them is no part of a run.

    Raises:
        UserError: unknown key, wrong type, or a value outside its range.
    """
    parsed = _parse(config, RunConfig)
    _check_ranges(parsed)
    return parsed


def parse_eval_config(config: DictConfig) -> EvalConfig:
    """Check a configuration composed for an evaluation, as :func:`parse_config` does.

    Raises:
        UserError: unknown key, wrong type, or a value outside its range.
    """
    parsed = _parse(config, EvalConfig)
    _check_data(parsed.data, parsed.split)
    for key, value, allowed in (
        ("stress", parsed.stress, ("ultrasound",)),
        ("explain", parsed.explain, ("gradcam", "occlusion")),
    ):
        if value is not None and value not in allowed:
            raise UserError(f"{key}={value}: expected null or {' or '.join(allowed)}")
    if parsed.backend not in BACKENDS:
        raise UserError(f"backend={parsed.backend}: expected {' or '.join(BACKENDS)}")
    devices = parsed.trainer.get("devices", 1)
    if devices != 1 and not (isinstance(devices, list) and len(devices) == 1):
        raise UserError(f"trainer.devices={devices}: an evaluation takes 1, or one by its number, as [1]")
    if epochs := [key for key in parsed.trainer if key.endswith(("_epochs", "_steps"))]:
        raise UserError(f"trainer.{epochs[0]}: an evaluation has no epochs; leave it out")
    return parsed


def _parse(config: DictConfig, kind: type[C]) -> C:
    """A configuration as an object of its schema; 8.0 becomes 8 in it, and null none, where these are meant."""
    write_whole(config, (*(f"trainer.{name}" for name in _WHOLE_OF_TRAINER), *whole_keys(kind)))
    for group, name in (("model", "weights"), ("model", "freeze"), ("scheduler", "name")):
        if OmegaConf.is_dict(config.get(group)) and name in config[group] and config[group][name] is None:
            config[group][name] = "none"
    content: Any = OmegaConf.to_container(config, resolve=True)
    for group in ("launcher", "search"):
        content.pop(group, None)
    if isinstance(model := content.get("model"), dict):
        common = {item.name for item in fields(NetworkSettings)}
        own = {key: model.pop(key) for key in list(model) if key not in common}
        content["model"] = {**model, "own": own}
    return checked(kind, content)


_WHOLE_OF_TRAINER = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "accumulate_grad_batches", "check_val_every_n_epoch"),
    *("log_every_n_steps", "num_sanity_val_steps", "num_nodes", "devices"),
)  # not those for which 1.0 means everything and 1 one batch


def _check_ranges(config: RunConfig) -> None:
    """Rules that types do not express."""
    _check_data(config.data, config.split)
    data, model, optim = config.data, config.model, config.optim
    positive = {
        "data.batch_size": data.batch_size,
        "optim.lr": optim.lr,
    }
    if optim.backbone_lr is not None:
        positive["optim.backbone_lr"] = optim.backbone_lr
        if optim.layer_decay is not None:
            raise UserError("optim.backbone_lr beside optim.layer_decay: both set the backbone's rates; leave one out")
    if optim.layer_decay is not None and not 0 < optim.layer_decay <= 1:
        raise UserError(f"optim.layer_decay={optim.layer_decay}: expected null or a factor above 0 and at most 1")
    check_positive(positive)
    if config.ema is not None and not 0 < config.ema < 1:
        raise UserError(f"ema={config.ema}: expected null or a decay between 0 and 1, as 0.999")
    epochs = config.trainer.get("max_epochs")
    if not isinstance(epochs, int) or epochs < 1:
        raise UserError(f"trainer.max_epochs={epochs}: expected a whole number of at least 1")
    if config.seed >= 2**32:
        raise UserError(f"seed={config.seed}: expected less than 2**32")
    nonnegative = {
        "seed": config.seed,
        "optim.weight_decay": optim.weight_decay,
    }
    check_nonnegative(nonnegative)
    fractions = {
        "scheduler.warmup_fraction": config.scheduler.warmup_fraction,
        "scheduler.factor": config.scheduler.factor,
    }
    check_fractions(fractions)
    if not 0 <= config.scheduler.final < 1:
        raise UserError(f"scheduler.final={config.scheduler.final}: expected a share of at least 0 and less than 1")
    _check_freeze(model.freeze, model.unfreeze_epoch)
    if not 0 <= model.dropout < 1:
        raise UserError(f"model.dropout={model.dropout}: expected at least 0 and less than 1")
    smoothing = config.task.get("label_smoothing", 0)
    if not isinstance(smoothing, int | float) or not 0 <= smoothing < 1:
        raise UserError(f"task.label_smoothing={smoothing}: expected at least 0 and less than 1")
    weights = config.task.get("class_weights")
    if weights is not None and not (
        isinstance(weights, list) and weights and all(isinstance(w, int | float) and w > 0 for w in weights)
    ):
        raise UserError(
            f"task.class_weights={weights}: expected null or a factor above 0 for each class, as in [1,2,3]"
        )
    check_positive({"sweep.grace": config.sweep.grace})
    failures = config.sweep.max_failures
    if failures is not None and failures < 1:
        raise UserError(f"sweep.max_failures={failures}: expected null or at least 1")
    _check_augment(config.augment)
    choices: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "model.in_chans": (model.in_chans, (1, 3)),
        "scheduler.name": (config.scheduler.name, ("none", "cosine", "warmup_cosine", "onecycle", "plateau")),
        "task.monitor_mode": (config.task.get("monitor_mode"), ("max", "min")),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"{key}={value}: expected {' or '.join(map(str, allowed))}")


def _check_augment(augment: AugmentConfig) -> None:
    """Amplitudes of 0 or more, and pairs in their order."""
    check_nonnegative({f"augment.{key}": value for key, value in vars(augment).items() if isinstance(value, float)})
    for key in ("shift", "zoom", "contrast", "gamma", "speckle"):
        if (amount := getattr(augment, key)) >= 1:
            raise UserError(f"augment.{key}={amount}: expected at least 0 and less than 1")
    if augment.erase > 1:
        raise UserError(f"augment.erase={augment.erase}: expected a probability from 0 to 1")
    if (factors := augment.brightness) is not None and not (len(factors) == 2 and 0 <= factors[0] <= factors[1]):
        raise UserError(f"augment.brightness={factors}: expected [lowest, highest] factor")
    for key in ("crop", "erase_share"):
        if (pair := getattr(augment, key)) is not None and not (len(pair) == 2 and 0 < pair[0] <= pair[1] <= 1):
            raise UserError(f"augment.{key}={pair}: expected [lowest, highest] share of the area, as [0.6,1.0]")
    if not (len(augment.crop_ratio) == 2 and 0 < augment.crop_ratio[0] <= augment.crop_ratio[1]):
        raise UserError(f"augment.crop_ratio={augment.crop_ratio}: expected [lowest, highest] width by height")


def _check_freeze(freeze: Any, unfreeze_epoch: int | None) -> None:
    """What can be said without the network, which knows its layers."""
    listed = isinstance(freeze, list | tuple) and freeze and all(isinstance(name, str) and name for name in freeze)
    if freeze not in ("none", "backbone") and not listed:
        raise UserError(f"model.freeze={freeze}: expected none, backbone or a list of layers, as [conv1,layer1]")
    if unfreeze_epoch is not None and (unfreeze_epoch < 1 or freeze == "none"):
        raise UserError(f"model.unfreeze_epoch={unfreeze_epoch}: expected 1 or more beside model.freeze, or null")


def _check_data(data: DataConfig, split: SplitConfig) -> None:
    """Rules of what is read and how it is split."""
    if not re.fullmatch(r"\w[\w.-]{0,63}", data.name):
        raise UserError(
            f"data.name={data.name}: expected a name of at most 64 letters, digits, dots, dashes and underscores, such "
            "as my_hospital"
        )
    if data.name == "phantom" and not data.phantom:
        raise UserError("data.name=phantom: means the phantoms that data=phantom makes; give your data another name")
    if data.phantom is not None and data.name != "phantom":
        raise UserError(
            f"data.phantom beside data.name={data.name}: only data=phantom, which is called phantom, makes phantoms; "
            "leave it out, or set data=phantom and leave data.name out"
        )
    if data.layout != "auto" and (data.layout != "folder" or data.name in ("busi", "labels", "phantom")):
        raise UserError(f"data.layout={data.layout} for data.name={data.name}: expected auto; data=folder means folder")
    if data.phantom is not None and data.root is not None:
        raise UserError(
            f"data.phantom beside data.root={data.root}: phantoms are made, and read from no other folder; leave "
            "data.root out, or set data=busi or data=labels for that folder"
        )
    if data.phantom is not None and (data.labels is not None or data.label_map):
        raise UserError("data.labels and data.label_map: phantoms have no table; leave both out")
    if split.protocol == "published" and not split.manifest and split.test_fraction != 0.2:
        raise UserError(
            f"split.test_fraction={split.test_fraction}: split=published is fixed at 0.2; use split=holdout"
        )
    if split.folds < 2:
        raise UserError(f"split.folds={split.folds}: expected at least 2")
    if split.manifest and split.exclude:
        raise UserError("split.exclude: a manifest says itself what is used; leave split.exclude or split.manifest out")
    if not 32 <= data.image_size <= MAX_IMAGE_SIZE:
        raise UserError(
            f"data.image_size={data.image_size}: expected 32, where backbones keep one position, to {MAX_IMAGE_SIZE}"
        )
    classes = data.classes
    if classes is not None and (not classes or len(set(classes)) < len(classes)):
        raise UserError(f"data.classes={classes}: expected null or some of the dataset's classes, each once")
    if data.lesion_values is not None and not data.lesion_values:
        raise UserError("data.lesion_values=[]: expected null, or values of masks that are lesion, as [120,255]")
    check_positive({"data.eval_batch_size": data.eval_batch_size})
    if data.roi_mode not in ("crop", "mask"):
        raise UserError(f"data.roi_mode={data.roi_mode}: expected crop or mask")
    check_nonnegative({"data.roi_margin": data.roi_margin})
    if data.subset is not None:
        check_positive({"data.subset": data.subset})
    if not 0 < data.annotated <= 1:
        raise UserError(f"data.annotated={data.annotated}: expected a share above 0 and at most 1")
    if data.epoch_images is not None:
        check_positive({"data.epoch_images": data.epoch_images})
    if data.sources is not None:
        _check_sources(data)
    if data.phantom is not None and data.copies_before_split:
        raise UserError("data.copies_before_split: copies are made of a folder; leave it out, or data.phantom")
    check_nonnegative({"data.copies_before_split": data.copies_before_split})
    check_nonnegative({"split.seed": split.seed, "data.num_workers": data.num_workers or 0})
    check_fractions({"split.test_fraction": split.test_fraction, "split.val_fraction": split.val_fraction})


def _check_sources(data: DataConfig) -> None:
    """What belongs to one dataset does not belong to several."""
    given = {
        "root": data.root,
        "layout": data.layout if data.layout != "auto" else None,
        "labels": data.labels,
        "label_map": data.label_map,
        "lesion_values": data.lesion_values,
        "phantom": data.phantom,
        "copies_before_split": data.copies_before_split,
    }
    if found := [key for key, value in given.items() if value]:
        raise UserError(
            f"data.{found[0]} beside data.sources: it belongs to one dataset; leave it out, or set it in an item of "
            "data.sources where that has such a key"
        )


def check_arguments(group: str, target: Any, arguments: Mapping[str, Any]) -> None:
    """Check that ``target`` takes every argument of a configuration group.

    Raises:
        UserError: naming the unknown key and the known ones.
    """
    known = [name for name in inspect.signature(target).parameters if name not in ("self", "args", "kwargs")]
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise UserError(one_of(f"{group}.{unknown[0]}: unknown key", unknown[0], known, "known keys"))
