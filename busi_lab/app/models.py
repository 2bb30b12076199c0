"""The models of the page: runs that are loaded once, and what can be told of a scan by each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from busi_lab.app.learnt import Learnt
from busi_lab.data.known_scans import KnownScans
from busi_lab.errors import UserError, one_line
from busi_lab.inference.explain import Explainer
from busi_lab.inference.predictor import Predictor, can_classify, can_segment
from busi_lab.inference.thresholds import set_thresholds
from busi_lab.plurals import counted
from busi_lab.report.results.conformal import COVERAGES
from busi_lab.summary import Summary, read_summary

MOST = 4  # side by side
NO_NOVELTY = (
    "Scans unlike the training scans: not looked for. The distance to the nearest training scan, which was tried, does "
    "not tell scans that are upside down from others."
)


@dataclass(frozen=True)
class Model:
    """A run that is applied to scans.

    Attributes:
        name: that no other has.
        directory: of the run.
        summary: of the run.
        predictor: with its thresholds of prediction sets, where it has them.
        coverage: of the prediction sets; None without thresholds.
        temperature: that divides its class logits; None where it has found none, or has no classes.
        explainer: draws Grad-CAM; None where that is off.
        learnt: scans that the run has learnt from; None where that check is off.
        off: what is not shown for this model, and why, in sentences.
    """

    name: str
    directory: Path
    summary: Summary
    predictor: Predictor
    coverage: float | None
    temperature: float | None
    explainer: Explainer | None
    learnt: KnownScans | None
    off: tuple[str, ...]


def load_models(
    runs: Sequence[Path], device: str = "auto", coverage: float = 0.9, check_learnt: bool = True
) -> list[Model]:
    """Load each run as a model of its own.

    Args:
        runs: directories of finished runs, ensembles or exported runs.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        coverage: of prediction sets.
        check_learnt: whether scans are held against those that the runs have learnt from.

    Raises:
        UserError: no run, too many, or one that cannot be used.
    """
    if not runs:
        raise UserError("no run to serve; give the directory of a finished run")
    if len(runs) > MOST:
        raise UserError(
            f"{counted(len(runs), 'run')}: expected at most {MOST} side by side; make one with busi-ensemble"
        )
    if coverage not in COVERAGES:
        raise UserError(f"--sets {coverage:g}: expected one of {', '.join(map(str, COVERAGES))}")
    learnt = Learnt(check_learnt)
    names = distinct_names(runs)
    return [_load(run, name, device, coverage, learnt) for run, name in zip(runs, names, strict=True)]


def distinct_names(runs: Sequence[Path]) -> list[str]:
    """A name for each directory: its last part, or as many as tell it from the others."""
    names = [run.name for run in runs]
    for parts in range(2, max((len(run.parts) for run in runs), default=0) + 1):
        twice = {name for name, count in Counter(names).items() if count > 1}
        names = ["/".join(run.parts[-parts:]) if name in twice else name for run, name in zip(runs, names, strict=True)]
    return names


def common_classes(models: Sequence[Model], needed_by: str) -> tuple[str, ...]:
    """The classes that all models predict.

    Raises:
        UserError: they differ; ``needed_by`` says what needs the same ones.
    """
    first, *others = models
    for other in others:
        if other.predictor.classes != first.predictor.classes:
            raise UserError(
                f"{needed_by}: {other.name} is of {', '.join(other.predictor.classes)}, and {first.name} of "
                f"{', '.join(first.predictor.classes)}; give runs of the same classes"
            )
    return first.predictor.classes


def _load(run: Path, name: str, device: str, coverage: float, learnt: Learnt) -> Model:
    summary = read_summary(run)
    classifiers = [run] if can_classify(summary.task) else []
    segmenters = [run] if can_segment(summary.task) else []
    off = []
    kept: float | None = None
    if classifiers:
        try:
            set_thresholds({run: summary}, coverage, changed=False)
            kept = coverage
        except UserError as error:
            off.append(f"Prediction sets: {_reason(error)}.")
    predictor = Predictor(classifiers, segmenters, device, coverage=kept)
    if classifiers and summary.temperature is None:
        off.append("Calibration: the run has found no temperature, so probabilities are as the network gives them.")
    explainer = None
    if classifiers:
        try:
            explainer = _explainer(predictor, summary)
        except UserError as error:
            off.append(f"Heat map: {one_line(error).partition('; ')[0]}.")
    scans, why = learnt.scans(run, summary)
    if why:
        off.append(f"Search for near-copies among training scans: {why}.")
    off.append(NO_NOVELTY)
    temperature = summary.temperature if classifiers else None
    return Model(name, run, summary, predictor, kept, temperature, explainer, scans, tuple(off))


def _reason(error: UserError) -> str:
    """Why there are no sets, without the option and without advice for a command line."""
    return one_line(error).partition(": ")[2].rpartition("; ")[0]


def _explainer(predictor: Predictor, summary: Summary) -> Explainer:
    if summary.members:
        raise UserError("this model is an ensemble, and a map would be of one member alone")
    if predictor.cuts_scans:
        raise UserError("this model sees scans that another has cut, which no map fits")
    return Explainer([predictor.task(path) for path in predictor.classifiers], ["gradcam"])
