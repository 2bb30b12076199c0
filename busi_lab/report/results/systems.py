"""Published systems among the runs: under which protocols they were tested, and how near they are to the recipe."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.published import PAPER_DATASET, PUBLISHED, PublishedResult
from busi_lab.report.results.tables import of_the_paper
from busi_lab.report.words import number, text

LEAK_FREE = ("grouped_kfold", "grouped_holdout", "curated", "by_source")
"""Protocols without near-copies across the parts, the one with the most test images first."""

_LEAKY = ("published", "holdout")
_INVALID = "invalid protocol"
_FIRST_STAGE = "data.roi"
_CUTS = ("max_steps", "max_time", "limit_train_batches", "overfit_batches", "fast_dev_run")


@dataclass(frozen=True)
class System:
    """A published system with our runs of one configuration.

    ``theirs`` ran under a protocol like the published one, ``leak_free`` under one without near-copies across the
    parts (a curated dataset is both), ``invalid`` were made wrong on purpose. ``lacks`` says what the runs lack of the
    recipe; empty for a replication.
    """

    name: str
    result: PublishedResult
    theirs: tuple[Experiment, ...]
    leak_free: tuple[Experiment, ...]
    invalid: tuple[Experiment, ...]
    lacks: tuple[str, ...]

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """All of them, each once."""
        return tuple({id(item): item for item in (*self.theirs, *self.leak_free, *self.invalid)}.values())

    @property
    def kind(self) -> str:
        """``replication`` for the full recipe alone, else ``rehearsal``."""
        return "rehearsal" if self.lacks else "replication"

    @property
    def weights(self) -> str:
        """What the networks started from."""
        return _weights(self.experiments[0])

    @property
    def pixels(self) -> int | None:
        """Side of the images."""
        return _whole(self.experiments[0], "data.image_size")

    @property
    def epochs(self) -> int | None:
        """The fewest epochs that a run was trained for."""
        return _epochs(self.experiments)


def systems(experiments: Sequence[Experiment]) -> list[System]:
    """The published systems among ``experiments``, in the order of the figures; those alone that can be compared.

    Runs are of one configuration where they agree in all but split, seeds and folds.
    """
    groups: dict[tuple[str, ...], list[Experiment]] = defaultdict(list)
    for item in experiments:
        if _is_run_of_one(item) and not _why_left_out(item):
            groups[_key(item)].append(item)
    found = [_system(items) for items in groups.values()]
    order = list(PUBLISHED)
    return sorted(found, key=lambda system: (order.index(system.name), bool(system.lacks)))


def left_out(experiments: Sequence[Experiment]) -> list[tuple[Experiment, str]]:
    """The runs of published systems on BUSI that stand beside no published figure, with the reason."""
    return [(item, why) for item in experiments if _is_run_of_one(item) and (why := _why_left_out(item))]


def _is_run_of_one(item: Experiment) -> bool:
    """Whether these are tested runs of a published system on BUSI, or on a wrong copy of it; no evaluations."""
    summary = item.rows[0].run.summary
    on_busi = of_the_paper(summary) or str(summary.data.name).startswith(f"{PAPER_DATASET} ({_INVALID}")
    tested = any(row.run.summary.tested for row in item.rows)
    return item.name in PUBLISHED and on_busi and tested and not item.rows[0].evaluated


def _why_left_out(item: Experiment) -> str:
    """Why runs of a published system stand beside no published figure; empty where they do."""
    result, summary = PUBLISHED[item.name], item.rows[0].run.summary
    if summary.data.name != PAPER_DATASET:
        return f"data {text(summary.data.name)}"
    used = summary.data.classes or item.classes.names  # older runs do not say which they used
    if result.task != "segmentation" and {*used} != {*result.classes}:
        return f"classes {', '.join(used)}, where the published figure is of {', '.join(result.classes)}"
    if result.curated and not (_INVALID in item.protocol or _is_theirs(item, result) or _is_leak_free(item)):
        return f"{item.protocol}, neither curated, as the published figure, nor leak-free"
    return ""


def _key(item: Experiment) -> tuple[str, ...]:
    table, row = item.table, item.rows[0]
    settings = f"unknown, of {row.folder}"
    if item.settings is not None:
        own = {name: value for name, value in item.settings.items() if not name.startswith("split.")}
        own |= {_FIRST_STAGE: "a run"} if _FIRST_STAGE in own else {}  # each split has a first stage of its own
        settings = str(own)
    return item.name, table.task, str(table.data_digest), str(row.run.summary.weights), settings


def _system(items: Sequence[Experiment]) -> System:
    name = items[0].name
    result = PUBLISHED[name]
    valid = [item for item in items if _INVALID not in item.protocol]
    return System(
        name,
        result,
        tuple(sorted((item for item in valid if _is_theirs(item, result)), key=_place)),
        tuple(sorted((item for item in valid if _is_leak_free(item)), key=_place)),
        tuple(item for item in items if _INVALID in item.protocol),
        tuple(_lacks(items, result)),
    )


def _place(item: Experiment) -> int:
    order = (*_LEAKY, *LEAK_FREE)
    return order.index(item.protocol) if item.protocol in order else len(order)


def _is_leak_free(item: Experiment) -> bool:
    """Whether no test image has a near-copy, or its patient, among those that the runs have learnt from."""
    summaries = [row.run.summary for row in item.rows]
    leaks = [number(summary.split.leaked) for summary in summaries]
    return item.protocol in LEAK_FREE and not any(leaks) and not any(s.split.unsearched for s in summaries)


def _is_theirs(item: Experiment, result: PublishedResult) -> bool:
    """Whether the images were shared out as in the source: with near-copies, but for a curated dataset."""
    if not result.curated:
        return not _is_leak_free(item)
    return _is_leak_free(item) and (item.protocol == "curated" or "split.exclude" in (item.settings or {}))


def _lacks(items: Sequence[Experiment], result: PublishedResult) -> list[str]:
    """What runs of one configuration lack of the recipe, each in some words."""
    recipe, settings, found = result.recipe, items[0].settings or {}, []
    start = items[0].rows[0].run.summary.weights
    if start in (None, "none", "imagenet"):
        if start != recipe.weights:
            found.append({"none": "from scratch", "imagenet": "from ImageNet"}.get(str(start), "weights unknown"))
    elif not recipe.missing:  # a stage in between takes the weights of another run
        found.append(f"from {_weights(items[0])}")
    if recipe.missing:
        found.append(recipe.missing)
    if recipe.cut and _FIRST_STAGE not in settings:
        found.append("whole scans, not cut to the lesion")
    pixels = _whole(items[0], "data.image_size")
    if pixels is None or pixels < recipe.pixels:
        found.append(_of(pixels, recipe.pixels, "px"))
    epochs = _whole(items[0], "trainer.max_epochs") if recipe.stops_early else _epochs(items)
    if epochs is None or epochs < recipe.epochs:
        found.append(_of(epochs, recipe.epochs, "epochs"))
    if "data.subset" in settings:
        found.append(f"at most {settings['data.subset']} images of each class")
    return found + [f"{cut}={settings[f'trainer.{cut}']}" for cut in _CUTS if f"trainer.{cut}" in settings]


def _of(ours: int | None, published: int, unit: str) -> str:
    return f"{'unknown' if ours is None else ours} of {published} {unit}"


def _weights(item: Experiment) -> str:
    summary = item.rows[0].run.summary
    start = text(summary.weights) or "unknown"
    learnt = text(summary.initial.data) if summary.initial else None
    return f"{Path(start).name} ({learnt})" if learnt else Path(start).name


def _whole(item: Experiment, key: str) -> int | None:
    value = (item.settings or {}).get(key, "")
    return int(value) if value.isdigit() else None


def _epochs(items: Sequence[Experiment]) -> int | None:
    known = [number(row.run.summary.epochs) for item in items for row in item.rows]
    counts = [int(count) for count in known if count is not None]
    return min(counts) if counts and len(counts) == len(known) else None
