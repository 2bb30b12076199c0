"""``summary.json``: what is known of a run, as typed records, and how it is written and read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

from busi_lab.classes import BUSI, Classes
from busi_lab.errors import UserError
from busi_lab.exported.record import EXPORT, ExportRecord
from busi_lab.files import write_json

SCHEMA = 1  # of summaries; that of checkpoints is in busi_lab.tasks.checkpoint
SUMMARY = "summary.json"
R = TypeVar("R")


@dataclass(frozen=True)
class SplitRecord:
    """How the images were shared out; None for what is not known.

    Attributes:
        protocol: as in ``split.protocol``.
        seed: ``split.seed``.
        fold: which of ``folds`` was tested.
        folds: of a protocol with folds.
        digest: of all parts.
        test_digest: of the test images.
        leaked: test images with a near-copy, or the same patient, in training or validation.
        version: of the way in which the split was made; folds of different ones are no parts of one whole.
        imbalance: a sentence for each class that could not be shared out evenly.
        near_copies: ``searched``, ``file`` where they were named, or ``none`` where they were not looked for.
    """

    protocol: str | None = None
    seed: int | None = None
    fold: int | None = None
    folds: int | None = None
    digest: str | None = None
    test_digest: str | None = None
    leaked: int | None = None
    version: int | None = None
    imbalance: tuple[str, ...] = ()
    near_copies: str | None = None

    @property
    def unsearched(self) -> bool:
        """Whether near-copies were not looked for, so that groups are patients at most."""
        return self.near_copies == "none"


@dataclass(frozen=True, kw_only=True)
class _WithClasses:
    """Classes of a dataset, in the order of probabilities, with their roles; empty in older summaries."""

    class_names: tuple[str, ...] = ()
    positive_class: str | None = None
    class_without_lesion: str | None = None

    @property
    def roles(self) -> Classes:
        """The same as one value; BUSI's where an older summary does not say."""
        return Classes(self.class_names, self.positive_class, self.class_without_lesion) if self.class_names else BUSI


@dataclass(frozen=True)
class DataRecord(_WithClasses):
    """The dataset of a run and how many of its images were used; None for what is not known.

    Attributes:
        name: ``data.name``.
        root: the dataset's folder, absolute.
        labels: the table of labels where it is not in that folder, absolute.
        label_map: what labels of the table mean, as in ``data.label_map``.
        digest: of all its pixels, masks and labels.
        train: images; none in an evaluation.
        val: images; none in an evaluation.
        test: images.
        classes: those of the training images, in an evaluation of the test images.
        test_classes: test images of each class.
        synthetic: whether they were made by a program.
        lesion_values: values of mask files that were taken as lesion; empty where the files themselves told.
        layout: how the folder is read, as ``data.layout``.
    """

    name: str | None = None
    root: str | None = None
    labels: str | None = None
    label_map: dict[str, str] = field(default_factory=dict)
    digest: str | None = None
    train: int | None = None
    val: int | None = None
    test: int | None = None
    classes: tuple[str, ...] = ()
    test_classes: dict[str, int] = field(default_factory=dict)
    synthetic: bool | None = None
    lesion_values: tuple[str, ...] = ()
    layout: str = "auto"

    @property
    def of_phantoms(self) -> bool:
        """Whether a program made the scans; of an older run, the name of the data or of their folder says it."""
        if self.synthetic is not None:
            return self.synthetic
        return any("phantom" in name.lower() for name in (str(self.name), Path(str(self.root)).name))


@dataclass(frozen=True)
class Source(_WithClasses):
    """The run that an evaluation has evaluated; None for what is not known.

    Attributes:
        directory: of the run.
        data: name of the dataset that it has learnt from.
        data_digest: of that dataset.
        split: that it has learnt under.
        train: images.
        val: images.
        test: images.
        metrics: ``test/NAME`` of the run itself.
    """

    directory: str | None = None
    data: str | None = None
    data_digest: str | None = None
    split: SplitRecord | None = None
    train: int | None = None
    val: int | None = None
    test: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InitialWeights:
    """What a network started from, where that was a file or another run; None for what is not known.

    Attributes:
        source: the file.
        digest: of it, sixteen hex digits.
        data: what it was trained on.
        taken: tensors that were taken.
        tensors: of the network.
        missing: names of those that were not.
        leaked: test images that the runs behind it have learnt from, or whose near-copy or patient they have.
    """

    source: str | None = None
    digest: str | None = None
    data: str | None = None
    taken: int | None = None
    tensors: int | None = None
    missing: tuple[str, ...] = ()
    leaked: int | None = None


STATUSES = ("finished", "failed", "pruned")
"""How a run ends; a pruned one was ended by a search after some epochs, and its test images were not touched."""


@dataclass(frozen=True)
class TeacherRecord:
    """The run whose answers another has learnt (``task.teacher``); None for what is not known.

    Attributes:
        directory: of the teacher, absolute.
        model: its network, in a word.
        data: name of the data that it has learnt from.
        leaked: test images that it has learnt from, or whose near-copy or patient it has.
    """

    directory: str | None = None
    model: str | None = None
    data: str | None = None
    leaked: int | None = None


@dataclass(frozen=True)
class FirstStageRecord:
    """The runs whose predicted masks have cut the scans of a run (``data.roi``); None for what is not known.

    Attributes:
        runs: their directories, absolute; several are folds, and each scan is cut by those that have tested it.
        digests: of their weights, sixteen hex digits each.
        mode: ``data.roi_mode``.
        margin: ``data.roi_margin``.
        scans: that were to be cut.
        whole: those of them that were left whole, because no lesion was found.
        leaked: test images that the runs which cut them have learnt from, or whose near-copy or patient they have.
    """

    runs: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    mode: str = "crop"
    margin: float = 0.1
    scans: int | None = None
    whole: int | None = None
    leaked: int | None = None


@dataclass(frozen=True)
class MemberRecord:
    """A run that is part of an ensemble; None for what is not known.

    Attributes:
        directory: of the run, absolute.
        digest: of its weights, sixteen hex digits.
        experiment: its name.
        seed: of its training.
        fold: that it has tested.
        weight: its share of the mean.
    """

    directory: str | None = None
    digest: str | None = None
    experiment: str | None = None
    seed: int | None = None
    fold: int | None = None
    weight: float | None = None


@dataclass(frozen=True)
class LesionCalibration:
    """What turns the confidence ``c`` of an outlined lesion into the probability that the outline is right.

    It is ``sigmoid(slope * logit(c) + intercept)``.

    Attributes:
        slope: 0 or more, so that the surer outline stays the more probable one.
        intercept: of the logit.
        lesions: outlined on validation images, which it was fitted to.
        right: how many of them are right.
    """

    slope: float
    intercept: float
    lesions: int
    right: int


@dataclass(frozen=True)
class Objective:
    """The validation figure that chose the best epoch and ranks runs, and whether ``max`` or ``min`` of it is best."""

    metric: str | None = None
    mode: str | None = None


@dataclass
class Summary:
    """What ``summary.json`` holds; fields that a failed run never learned are None or empty.

    ``metrics`` maps ``val/NAME`` and ``test/NAME`` to a number (``test/confusion_matrix`` to rows of counts),
    ``seconds`` has ``fit, test, total``. ``inference_milliseconds`` is the median time of the network for one scan
    alone. ``best_epoch`` counts as in ``metrics.csv``, from 0.
    ``peak_memory_bytes`` and ``peak_gpu_memory_bytes`` are the most that the process held at once, in main memory and
    in what torch has taken of its GPU, since the process began; None where that cannot be told.
    ``command`` is the command line without output paths. ``source`` is there in the result of an evaluation alone;
    ``data`` and ``split`` then are what it was tested on. ``members`` are there in an ensemble of runs alone.
    ``temperature`` divides class logits, so that probabilities fit the validation images best; None without classes, in
    older runs, and where no best one was found. ``export`` is there in an exported run alone, and in its evaluations.
    ``set_thresholds`` has, by the stated coverage of prediction sets and by class, the probability from which on the
    class is in the set, 0 where validation images are too few to tell; it is empty without classes and in older runs.
    ``lesion_calibration`` is None without lesion probabilities, in older runs, and with few validation lesions.
    """

    status: str
    schema: int = SCHEMA
    error: str | None = None
    task: str | None = None
    experiment: str | None = None
    model: str | None = None
    weights: str | None = None
    seed: int | None = None
    split: SplitRecord = field(default_factory=SplitRecord)
    data: DataRecord = field(default_factory=DataRecord)
    parameters: int | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    initial: InitialWeights | None = None
    first_stage: FirstStageRecord | None = None
    teacher: TeacherRecord | None = None
    objective: Objective = field(default_factory=Objective)
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    images_per_second: float | None = None
    inference_milliseconds: float | None = None
    device: str | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    precision: str | None = None
    wandb: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    git: str | None = None
    command: str | None = None
    source: Source | None = None
    members: tuple[MemberRecord, ...] = ()
    temperature: float | None = None
    export: ExportRecord | None = None
    set_thresholds: dict[str, Any] = field(default_factory=dict)
    lesion_calibration: LesionCalibration | None = None

    @property
    def tested(self) -> bool:
        """Whether the test images were touched; a run with ``test=false`` leaves them alone."""
        return any(name.startswith("test/") for name in self.metrics)


def write_summary(directory: Path, summary: Summary) -> None:
    """Write ``summary.json``, the last act of a run."""
    write_json(directory / SUMMARY, asdict(summary))


def is_export(directory: Path) -> bool:
    """Whether a directory holds an exported run, which ``busi-export`` has written."""
    return (directory / EXPORT).is_file()


def read_summary(directory: Path) -> Summary:
    """Read ``summary.json`` of a run directory, or ``export.json`` of an exported run.

    Raises:
        UserError: the file is missing, cut, of a newer schema, or not a summary.
    """
    path = directory / (EXPORT if is_export(directory) else SUMMARY)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{directory} is no ended run: it has no {SUMMARY}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is cut or not JSON"
        raise UserError(f"{path} cannot be read: {reason}; run the experiment again") from None
    if not isinstance(content, dict) or "status" not in content or "schema" not in content:
        raise UserError(f"{path} is not a busi-lab summary: expected the keys schema and status")
    if content["schema"] != SCHEMA:
        raise UserError(
            f"{path} has schema {content['schema']}, this version reads {SCHEMA}; "
            "use the busi-lab version that wrote it"
        )
    if content["status"] not in STATUSES:
        raise UserError(f"{path}: status {content['status']!r}, expected {', '.join(STATUSES)}")
    try:
        return _read(Summary, content)
    except TypeError as error:
        raise UserError(f"{path} is not a busi-lab summary: {error}") from None


_NESTED: Mapping[str, type] = {
    "split": SplitRecord,
    "data": DataRecord,
    "objective": Objective,
    "source": Source,
    "initial": InitialWeights,
    "first_stage": FirstStageRecord,
    "teacher": TeacherRecord,
    "export": ExportRecord,
    "lesion_calibration": LesionCalibration,
}


def _read(record: type[R], content: Any, where: str = "") -> R:
    """A record from its JSON; keys of later versions and null are passed over.

    Raises:
        TypeError: a value of another type than the record's, or a role of no class; names the key.
    """
    if not isinstance(content, dict):
        raise TypeError(f"{where.rstrip('.')} must be an object")
    values: dict[str, Any] = {}
    for item in fields(record):  # type: ignore[arg-type]
        value = content.get(item.name)
        if value is None:
            continue
        nested = _NESTED.get(item.name) if record is Summary or (record is Source and item.name == "split") else None
        if nested is not None:
            values[item.name] = _read(nested, value, f"{where}{item.name}.")
        elif record is Summary and item.name == "members":
            if not isinstance(value, list):
                raise TypeError("members must be a list of objects")
            values[item.name] = tuple(_read(MemberRecord, each, "members.") for each in value)
        else:
            values[item.name] = _checked(value, item.type, f"{where}{item.name}")
    if issubclass(record, _WithClasses):
        _check_roles(values, where)
    return record(**values)


def _check_roles(values: Mapping[str, Any], where: str) -> None:
    """Refuse class names that are no two different ones, and roles of other classes."""
    names = values.get("class_names", ())
    if names and (len(names) < 2 or len(set(names)) < len(names)):
        raise TypeError(f"{where}class_names must be two names at least, each once, found {', '.join(names)[:40]!r}")
    for role in ("positive_class", "class_without_lesion"):
        if names and values.get(role) not in (None, *names):
            raise TypeError(f"{where}{role} must be one of {', '.join(names)}, found {values[role][:40]!r}")


_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    tuple: "a list of texts",
}


def _checked(value: Any, annotation: Any, where: str) -> Any:
    """``value`` where it has the type of a field; whole numbers may be written as 3.0."""
    kinds = (
        [k for k in get_args(annotation) if k is not NoneType] if isinstance(annotation, UnionType) else [annotation]
    )
    kind = get_origin(kinds[0]) or kinds[0]
    if kind is tuple and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{where} must be {_WORDS[kind]}, found {str(value)[:40]!r}")
    return value
