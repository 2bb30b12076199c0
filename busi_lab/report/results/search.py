"""What a search for hyperparameters left in its directory: its trials, and how much each setting mattered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from busi_lab.report.words import number

SEARCH = "search.json"


@dataclass(frozen=True)
class Trial:
    """A trial; ``value`` is None where it has failed, was pruned or is under way."""

    number: int
    state: str
    value: float | None
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """A search.

    Attributes:
        objective: the validation figure.
        mode: ``max`` or ``min`` of it is best.
        folds: that a trial is the mean over; None for one run.
        trials: in their order.
        log: the settings whose values were drawn on a logarithmic scale.
        importance: share of each setting in the spread of the objective, largest first; empty where not known.
    """

    objective: str
    mode: str
    folds: int | None
    trials: tuple[Trial, ...]
    log: frozenset[str] = frozenset()
    importance: Mapping[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> tuple[Trial, ...]:
        """The trials with a value."""
        return tuple(trial for trial in self.trials if trial.value is not None)

    @property
    def best(self) -> Trial | None:
        """The first of the best trials."""
        sign = -1 if self.mode == "min" else 1
        return max(self.complete, key=lambda trial: sign * (trial.value or 0.0), default=None)


def read_search(directory: Path) -> Search | None:
    """The search in a directory; None where there is none, or its record is damaged."""
    try:
        content = json.loads((directory / SEARCH).read_text(encoding="utf-8"))
        trials = tuple(
            Trial(int(item["trial"]), str(item["state"]), number(item["value"]), dict(item["params"]))
            for item in content["trials"]
        )
        importance = {str(key): float(value) for key, value in content["importance"].items()}
        log = frozenset(map(str, content["log"]))
        return Search(str(content["objective"]), str(content["mode"]), content["folds"], trials, log, importance)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
