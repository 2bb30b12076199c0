"""The study of a search, by Optuna: its journal, its sampler and pruner, and what it knows of trials."""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError, one_line
from busi_lab.sweep.search.settings import Choices, Range, SearchSettings, Space

JOURNAL = "journal.log"
_NAME, _OWNER = "search", "of"


def open_study(directory: Path, settings: SearchSettings, space: Space, mode: str, owner: str) -> Any:
    """The study in the directory of a sweep, begun or continued.

    Args:
        directory: holds the journal.
        settings: sampler and pruner are made anew, since the journal does not hold them.
        space: that is searched.
        mode: ``max`` or ``min``.
        owner: what the search is of, as :func:`identity` says.

    Raises:
        UserError: Optuna is missing, or the journal is damaged or of another search.
    """
    optuna = _optuna()
    path = directory / JOURNAL
    known = path.exists()
    try:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        study = optuna.create_study(
            storage=storage,
            study_name=_NAME,
            direction="minimize" if mode == "min" else "maximize",
            sampler=_sampler(optuna, settings, space),
            pruner=_pruner(optuna, settings),
            load_if_exists=True,
        )
    except Exception as error:  # whatever a damaged journal makes of Optuna
        raise UserError(f"{path}: cannot be read ({one_line(error)[:120]}); choose another hydra.sweep.dir") from None
    before = study.user_attrs.get(_OWNER)
    if (before is None and known and study.trials) or before not in (None, owner):
        raise UserError(
            f"{path} belongs to another search, of other values, folds or settings; choose another hydra.sweep.dir"
        )
    study.set_user_attr(_OWNER, owner)
    study.sampler = _sampler(optuna, settings, space, drawn=len(study.trials))
    return study


def identity(space: Space, objective: str, mode: str, folds: int | None, overrides: Sequence[str]) -> str:
    """A digest of what a search is of: space, objective, folds, and the overrides that all trials share.

    Overrides of ``sweep`` say how jobs are carried out, and may be others when the search goes on.
    """
    shared = sorted(item for item in overrides if not item.lstrip("+~").startswith("sweep."))
    content = [sorted((key, repr(item)) for key, item in space.items()), objective, mode, folds, shared]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def distributions(space: Space) -> dict[str, Any]:
    """The space as Optuna has it. Values that no journal can hold are given by their text."""
    optuna = _optuna()
    found: dict[str, Any] = {}
    for key, item in space.items():
        if isinstance(item, Choices):
            found[key] = optuna.distributions.CategoricalDistribution([as_value(value) for value in item.values])
        elif item.whole:
            step = 1 if item.step is None else int(item.step)
            found[key] = optuna.distributions.IntDistribution(int(item.low), int(item.high), item.log, step)
        else:
            found[key] = optuna.distributions.FloatDistribution(item.low, item.high, item.log, item.step)
    return found


def as_value(value: Any) -> Any:
    """A choice as it is stored and typed: lists as text, the rest as it is."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("search needs Optuna: pip install 'busi-lab[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _sampler(optuna: Any, settings: SearchSettings, space: Space, drawn: int = 0) -> Any:
    """A sampler; one that goes on after ``drawn`` trials does not draw the same again."""
    seed = settings.seed + drawn
    with _quiet():
        if settings.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if settings.sampler == "grid":
            grid = optuna.samplers.GridSampler({key: _values(item) for key, item in space.items()}, seed=settings.seed)
            grid.after_trial = lambda *_: None  # at the last point it would stop a loop of Optuna's; ours counts points
            return grid
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=settings.startup, constant_liar=True, multivariate=True
        )


def _values(item: Range | Choices) -> list[Any]:
    """All values of an entry of a grid."""
    if isinstance(item, Choices):
        return [as_value(value) for value in item.values]
    step = item.step or 1
    count = math.floor((item.high - item.low) / step + 1e-9) + 1
    return [type(item.low)(item.low + i * step) for i in range(count)]


def _pruner(optuna: Any, settings: SearchSettings) -> Any:
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, settings.warmup))
    return optuna.pruners.NopPruner()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar and multivariate are called experimental
        yield


def overrides_of(params: Mapping[str, Any]) -> list[str]:
    """The values of a trial as overrides of a command line, floats with four digits."""
    return [f"{key}={_written(value)}" for key, value in params.items()]


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def importance(study: Any) -> dict[str, float]:
    """Share of each setting in what tells the best trials from the others, largest first; empty with too few trials.

    Source: Watanabe, Bansal & Hutter, "PED-ANOVA", IJCAI 2023, as Optuna has it.
    """
    optuna = _optuna()
    try:
        with _quiet():
            found = optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
    except (RuntimeError, ValueError):  # too few trials, or settings without a spread
        return {}
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}
