"""What stands in for the clients of trackers, and a result to send to them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from busi_lab.files import write_rows
from busi_lab.run_directory import PREDICTIONS
from busi_lab.summary import DataRecord, SplitRecord, Summary
from busi_lab.tracking import Job, Result, Tracker

CASES = (("a", "benign", "benign", 0.9), ("b", "malignant", "benign", 0.7), ("c", "normal", "normal", 0.6))


def made_result(folder: Path) -> Result:
    rows: list[dict[str, Any]] = []
    for number, (image, label, prediction, sure) in enumerate((*CASES, ("d", "malignant", "normal", 0.8))):
        shares = {f"p_{name}": sure if name == prediction else (1 - sure) / 2 for name in ("benign", "malignant")}
        rest = 1 - sum(shares.values())
        dice = None if label == "normal" else number / 4
        rows.append({"image": image, "label": label, "prediction": prediction, **shares, "p_normal": rest})
        rows[-1]["dice"] = dice
    write_rows(folder / PREDICTIONS, rows, rows[0])
    maps = folder / "explanations/gradcam"
    maps.mkdir(parents=True)
    generator = np.random.default_rng(0)
    pictures = {row["image"]: generator.integers(0, 255, (32, 32), dtype=np.uint8) for row in rows}
    masks = {name: np.pad(np.ones((8, 8), np.uint8), 12) for name in pictures}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(maps / f"{name}.png")
    summary = Summary(
        "finished",
        experiment="small",
        split=SplitRecord(digest="s", test_digest="t", leaked=0),
        data=DataRecord(digest="d", train=8, val=4, test=4),
        parameters=12,
        best_epoch=3,
        images_per_second=5.0,
        metrics={"val/f1": 0.4, "test/accuracy": 0.5, "test/hd95": None, "test/confusion_matrix": [[1]]},
    )
    wide = {name: np.ones((64, 48), bool) for name in masks}
    return Result(summary, rows, pictures, masks, wide, folder / "explanations")


class Told(Tracker):
    """A tracker of one's own: a class named by ``_target_`` is enough."""

    calls: list[tuple[Any, ...]] = []  # noqa: RUF012
    breaks: tuple[str, ...] = ()

    def __init__(self, settings: Any, job: Job) -> None:
        super().__init__(settings, job)
        self.breaks = tuple(settings.get("breaks", ()))
        self._note("open", job.name, job.kind)

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] in self.breaks:
            raise ConnectionResetError("the service is gone")

    @classmethod
    def for_sweep(cls, settings: Any, sweep: Path) -> dict[str, str]:
        return {"TOLD": sweep.name}

    def start(self, summary: Summary, monitor: str | None, mode: str, metric_names: Any) -> None:
        self._note("start", monitor, mode)

    def epoch(self, row: Any) -> None:
        self._note("epoch", row["epoch"])

    def masks(self, epoch: int, shown: Any) -> None:
        self._note("masks", epoch)

    def result(self, result: Result) -> None:
        self._note("result", result.summary.status)

    def report(self, out: Path) -> None:
        self._note("report", out.name)

    def failure(self, error: str) -> None:
        self._note("failure", error)

    def finish(self, failed: bool) -> None:
        self._note("finish", failed)


class Recorder(ModuleType):
    """Notes what W&B's client is told: ``runs``, each with what was logged, its summary and how it ended."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.runs: list[Run] = []
        self.refused: tuple[str, ...] = ()
        self.errors = SimpleNamespace(Error=type("Error", (Exception,), {}))
        self.Settings = dict
        self.Image = _noted("image")
        self.Table = _noted("table")
        self.Html = _noted("html")
        self.Artifact = Artifact
        self.plot = SimpleNamespace(confusion_matrix=_noted("matrix"), line_series=_noted("lines"))

    def init(self, **arguments: Any) -> "Run":
        if arguments["mode"] in self.refused:
            raise self.errors.Error("no such entity")
        self.runs.append(Run(arguments))
        return self.runs[-1]


def _noted(kind: str) -> Any:
    return lambda *values, **more: SimpleNamespace(kind=kind, values=values, **more)


class Artifact:
    def __init__(self, name: str, **more: Any) -> None:
        self.name, self.files, self.metadata = name, list[str](), more.get("metadata")

    @contextmanager
    def new_file(self, name: str) -> Iterator[StringIO]:
        self.files.append(name)
        yield StringIO()

    def add_file(self, path: str, **more: Any) -> None:
        self.files.append(path)


class Run:
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.id, self.group, self.url = arguments["id"], arguments["group"], "https://there"
        self.name, self.dir = arguments["name"], f"{arguments['dir']}/wandb/offline-run-{len(arguments)}/files"
        self.starting_step = 0
        self.used: list[Artifact] = []
        self.alerts: list[tuple[str, str, str]] = []
        self.config = SimpleNamespace(update=self._update)
        self.configured = dict(arguments["config"])
        self.summary: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, Any], int | None]] = []
        self.defined: dict[str, dict[str, Any]] = {}
        self.artifacts: list[tuple[Artifact, list[str]]] = []
        self.exit_code: int | None = None

    def _update(self, values: dict[str, Any], allow_val_change: bool) -> None:
        self.configured |= values

    def define_metric(self, name: str, **more: Any) -> None:
        self.defined[name] = more

    def use_artifact(self, artifact: Artifact) -> None:
        self.used.append(artifact)

    def alert(self, title: str, text: str, level: str) -> None:
        self.alerts.append((title, text, level))

    def log(self, values: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        self.logged.append((values, step))

    def log_artifact(self, artifact: Artifact, aliases: list[str]) -> None:
        self.artifacts.append((artifact, aliases))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code

    @property
    def shown(self) -> dict[str, Any]:
        """Everything that was logged, by its key."""
        return {key: value for values, _ in self.logged for key, value in values.items()}


class PlainLogger:
    """Lightning's interface of loggers, with a client that takes nothing but metrics."""

    made: list[Any] = []  # noqa: RUF012

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.experiment: Any = object()
        self.parameters: dict[str, Any] = {}
        self.metrics: dict[str, tuple[float, int]] = {}
        self.status = ""
        self.made.append(self)

    def log_hyperparams(self, parameters: dict[str, Any]) -> None:
        self.parameters |= parameters

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.metrics |= {name: (value, step) for name, value in metrics.items()}

    def finalize(self, status: str) -> None:
        self.status = status


class BoardLogger(PlainLogger):
    """A logger with TensorBoard's writer."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.images: dict[str, Any] = {}
        self.texts: dict[str, str] = {}
        self.experiment = SimpleNamespace(add_image=self._add_image, add_text=self.texts.__setitem__)

    def _add_image(self, name: str, picture: Any, step: int, dataformats: str) -> None:
        assert (picture.dtype, picture.shape[2], dataformats) == (np.uint8, 3, "HWC")
        self.images[name] = step


class MLFlowLogger(PlainLogger):
    """A logger with MLflow's client."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.run_id = arguments.get("run_id", "id1")
        self.tags: dict[str, str] = {}
        self.images: list[str] = []
        self.files: list[tuple[str, str]] = []
        self.updated: list[str] = []
        self.experiment = SimpleNamespace(
            set_tag=lambda run_id, name, value: self.tags.update({name: value}),
            update_run=lambda run_id, status: self.updated.append(status),
            log_image=lambda run_id, picture, place: self.images.append(place),
            log_artifact=lambda run_id, path, folder: self.files.append((Path(path).name, folder)),
        )


class BrokenLogger:
    """A logger whose package is missing."""

    def __init__(self, **arguments: Any) -> None:
        raise ModuleNotFoundError("No module named 'absent'")
