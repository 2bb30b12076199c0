"""What a search is configured with: group ``search``, and the space of values that it tries."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from busi_lab.checking import check_least, checked
from busi_lab.errors import UserError
from busi_lab.suggestions import one_of

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median", "hyperband")


@dataclass
class SearchSettings:
    """Group ``search``.

    Attributes:
        trials: in all; more of them continue the search.
        parallel: trials at once; None for as many as the launcher has places, or 4 where it takes any number.
        sampler: one of ``SAMPLERS``.
        pruner: one of ``PRUNERS``: whether poor trials end after some epochs.
        startup: trials that are drawn at random before the sampler or the median pruner knows enough.
        warmup: epochs that no pruner touches.
        folds: None, or N: a trial is the mean over the first N folds of ``grouped_kfold``.
        seed: of the sampler.
        space: groups and keys as in the configuration, with ``{low, high, log, step}`` or ``{choices}`` as values.
    """

    trials: int = 20
    parallel: int | None = None
    sampler: str = "tpe"
    pruner: str = "none"
    startup: int = 10
    warmup: int = 1
    folds: int | None = None
    seed: int = 0
    space: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Item:
    """One entry of a space, as it is written."""

    low: Any = None
    high: Any = None
    log: bool = False
    step: Any = None
    choices: Any = None


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, whole ones where both are and the step is; ``step`` is None for all."""

    low: float
    high: float
    log: bool
    step: float | None

    @property
    def whole(self) -> bool:
        """Whether it has whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None)


@dataclass(frozen=True)
class Choices:
    """Some values."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | Choices]


def search_settings(group: Mapping[str, Any]) -> tuple[SearchSettings, Space]:
    """Check the group ``search``.

    Raises:
        UserError: an unknown key, a value outside its range, or an empty or wrong space.
    """
    settings = checked(SearchSettings, group, "search")
    check_least("search", settings, {"trials": 1, "parallel": 1, "startup": 1, "warmup": 0, "folds": 2, "seed": 0})
    for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if (value := getattr(settings, name)) not in known:
            raise UserError(one_of(f"search.{name}={value}", value, known, "expected one of"))
    if settings.folds is not None and settings.pruner != "none":
        raise UserError(f"search.pruner={settings.pruner} beside search.folds: a trial of several runs is not pruned")
    space = dict(_items("", settings.space))
    if not space:
        raise UserError("search.space: expected a key of the configuration at least, found none; see conf/search")
    if settings.sampler == "grid":
        for key, item in space.items():
            if isinstance(item, Range) and item.step is None and not item.whole:
                raise UserError(f"search.space.{key}: sampler=grid needs choices, whole numbers, or a step")
    return settings, space


def _items(above: str, group: Mapping[Any, Any]) -> Iterator[tuple[str, Range | Choices]]:
    """The entries of a space with their keys; null leaves one out."""
    for name, value in group.items():
        key = f"{above}{name}"
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise UserError(
                f"search.space.{key}={value}: expected {{low: A, high: B}} with log or step, or {{choices: [A, B]}}"
            )
        if value and all(each is None or isinstance(each, Mapping) for each in value.values()):
            yield from _items(f"{key}.", value)
        else:
            yield key, _item(f"search.space.{key}", value)


def _item(where: str, value: Mapping[Any, Any]) -> Range | Choices:
    item = checked(_Item, value, where)
    if item.choices is not None:
        if not isinstance(item.choices, list) or not item.choices or (item.low, item.high) != (None, None):
            raise UserError(f"{where}: expected choices, a list of values, and nothing beside it")
        return Choices(tuple(item.choices))
    for name in ("low", "high"):
        number = getattr(item, name)
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise UserError(f"{where}.{name}={number}: expected a number")
    if item.low >= item.high:
        raise UserError(f"{where}: expected low below high, found {item.low} and {item.high}")
    if item.log and item.low <= 0:
        raise UserError(f"{where}.low={item.low}: expected more than 0 beside log")
    if item.step is not None and (item.log or not isinstance(item.step, int | float) or item.step <= 0):
        raise UserError(f"{where}.step={item.step}: expected more than 0, and no log beside it")
    return Range(item.low, item.high, bool(item.log), item.step)
