"""What an analysis says, as sentences and tables of words that every rendering shows alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from busi_lab.report.subjects import Subject


@dataclass(frozen=True)
class Block:
    """Sentences over a table; a cell may have a second line after a line break."""

    title: str
    sentences: tuple[str, ...]
    titles: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Pooled:
    """Clinical blocks of experiments over several folds; ``subject`` is the first of them, for its plots."""

    title: str
    blocks: tuple[Block, ...]
    subject: Subject


@dataclass(frozen=True)
class Analysis:
    """What is known beyond single runs: repeats, tests, protocols side by side, and clinical figures.

    ``protocols``, ``repeats`` and ``tests`` stand for themselves; ``clinical`` has the blocks of a table by its
    number. ``repeat_records`` and ``pair_records`` are the rows of ``repeats.csv`` and ``pairs.csv``.
    ``evaluations`` tells of runs that were evaluated on other data, in strata or under stress.
    ``pooled`` has clinical figures over folds; ``fold_tables`` are the tables of those folds, which have no plots.
    """

    protocols: tuple[Block, ...] = ()
    repeats: tuple[Block, ...] = ()
    tests: tuple[Block, ...] = ()
    clinical: Mapping[int, tuple[Block, ...]] = field(default_factory=dict)
    repeat_records: tuple[Mapping[str, Any], ...] = ()
    pair_records: tuple[Mapping[str, Any], ...] = ()
    pooled: tuple[Pooled, ...] = ()
    fold_tables: frozenset[int] = frozenset()
    evaluations: tuple[Block, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All that belongs to no single table, in reading order."""
        return (*self.protocols, *self.evaluations, *self.repeats, *self.tests)
