"""How good runs are: bars of test metrics, intervals of experiments, Dice by class and by size, cost."""

from collections.abc import Mapping, Sequence

import numpy as np

from busi_lab.report import words
from busi_lab.report.figures.shapes import INK, Axis, Group, Mark, Panel, Plot, Rows, Series
from busi_lab.report.figures.title import headline, selection
from busi_lab.report.results.cases import Cases, read_test_cases
from busi_lab.report.results.estimates import Estimate
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.tables import Row, Table
from busi_lab.report.results.uncertainty import Floats

_METRICS = ("accuracy", "precision", "recall", "f1", "dice", "iou", "dice_pooled", "pixel_accuracy")
_SPREADS_SHOWN = 6  # runs with a distribution of their own at most; a mark for each image makes them large
_MARKERS = ("o", "^", "s", "D")


def bars(table: Table, shown: int) -> Group:
    """A panel a metric, a bar a run, the paper's figures as diamonds."""
    panels = []
    for name in _METRICS:
        known = [(row, value) for row in table.rows if (value := row.metric(f"test/{name}")) is not None][:shown]
        if not known:
            continue
        marks = [
            Mark(row.label, words.figure(value), bar=value, diamond=row.published.get(name)) for row, value in known
        ]
        best = ", ".join(f"{row.label} {words.figure(value)}" for row, value in known[:3])
        alt = f"{name} on the test set, best by validation first: {best}"
        panels.append(Panel(name, (Rows(tuple(marks)),), alt))
    paper = "The diamond is the paper's figure." if any(row.published for row in table.rows) else ""
    caption = f"{selection(table, shown)}{paper}".strip()
    return Group("Test metrics", caption, tuple(panels), (), f"table{table.number}_metrics", headline(table))


def intervals(title: str, caption: str, figures: Mapping[str, Sequence[Experiment]]) -> Group:
    """A panel a metric: the figure of each experiment with its interval."""
    panels = []
    for name, experiments in figures.items():
        known = [(item.label, item.estimates[name]) for item in experiments]
        panels.append(_interval_panel(name, known))
    return Group(title, caption, tuple(panels))


def own_intervals(item: Experiment, names: Sequence[str]) -> Group:
    """The figures of one experiment, each with its interval."""
    known = [(name, item.estimates[name]) for name in names if name in item.estimates]
    panels = (_interval_panel(item.label, known),) if known else ()
    return Group("The main figures", "With 95 % intervals.", panels)


def _interval_panel(title: str, known: Sequence[tuple[str, Estimate]]) -> Panel:
    marks, told = [], []
    for label, found in known:
        ends = words.ends(found.low, found.high)
        marks.append(Mark(label, words.figure(found.value), interval=(found.low, found.value, found.high)))
        told.append(f"{label} {words.figure(found.value)} ({ends})")
    return Panel(title, (Rows(tuple(marks)),), f"{title} with 95 % intervals: {'; '.join(told)}")


def dice(table: Table) -> Group:
    """Dice by class for the best runs, and against lesion size for the best one; no panels without masks."""
    cases = ((row, read_test_cases(row.run)) for row in table.rows[:_SPREADS_SHOWN])
    found = [
        (row, known) for row, known in cases if known is not None and np.isfinite(known.masks.get("dice", ())).any()
    ]
    lesions = table.classes.lesions
    panels = [panel for label in lesions if (panel := _spread(label, found))]
    count = len(table.rows)
    best = f" Best by validation first{f', {len(found)} of {count} runs' if len(found) < count else ''}."
    caption = "A mark is an image; the bar spans the middle half of them, with the median as a line."
    caption += best if count > 1 else ""
    if found and (size := _against_size(*found[0])):
        panels.append(size[0])
        if size[1]:
            caption += f" Against lesion size: the line is the median of {size[1]} images of neighbouring size."
    return Group("Dice by class and by size of the lesion", caption, tuple(panels))


def _spread(label: str, found: Sequence[tuple[Row, Cases]]) -> Panel | None:
    """Marks for each run over their quartiles, for the images of one class."""
    marks, told = [], []
    for row, cases in found:
        values = cases.masks["dice"][(np.array(cases.labels) == label) & np.isfinite(cases.masks["dice"])]
        if not len(values):
            continue
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        mean = words.figure(float(values.mean()))
        marks.append(
            Mark(row.label, f"mean {mean}, n {len(values)}", quartiles=(low, middle, high), dots=values.tolist())
        )
        told.append(f"{row.label} mean {mean}, median {words.figure(middle)}, {len(values)} images")
    if not marks:
        return None
    return Panel(f"Dice, {label}", (Rows(tuple(marks)),), f"Dice of {label} images. {'; '.join(told)}")


def _against_size(row: Row, cases: Cases) -> tuple[Panel, int] | None:
    """Dice over the lesion's share of the scan, and over how many images its line is; None without sizes."""
    lesion, dice = cases.share("lesion_pixels"), cases.masks["dice"]
    known = np.isfinite(dice) & np.isfinite(lesion) & (lesion > 0)
    if not known.any():
        return None
    share, dice, labels = 100 * lesion[known], dice[known], np.array(cases.labels)[known]
    series, legend = [], []
    for i, label in enumerate(name for name in cases.classes.lesions if (labels == name).any()):
        chosen = labels == label
        series.append(Series(share[chosen].tolist(), dice[chosen].tolist(), i, False, _MARKERS[i % len(_MARKERS)]))
        legend.append((i, label))
    if not legend:  # scans without labels
        series.append(Series(share.tolist(), dice.tolist(), 0, False, _MARKERS[0]))
    window = max(5, len(dice) // 6)
    window = window if len(dice) >= 2 * window else 0
    if window:
        x, y = running_median(share, dice, window)
        series.insert(0, Series(x.tolist(), y.tolist(), INK))
    size = Axis("lesion's share of the scan (%)", float(share.min()) / 1.2, float(share.max()) * 1.2, log=True)
    plot = Plot(tuple(series), size, Axis("Dice", 0, 1), 2.6)
    half = np.median(share)
    small, large = dice[share <= half].mean(), dice[share > half].mean() if (share > half).any() else None
    alt = f"Dice of {row.label} against lesion size: mean {words.figure(float(small))} up to {words.short(half, 2)} %"
    alt += " of the scan" + ("" if large is None else f", {words.figure(float(large))} above")
    return Panel(f"{row.label}: Dice against lesion size", (plot,), alt, tuple(legend)), window


def running_median(x: Floats, y: Floats, window: int) -> tuple[Floats, Floats]:
    """Medians of ``x`` and of ``y`` over each ``window`` neighbours by ``x``.

    Args:
        x: ``[N]``.
        y: ``[N]``.
        window: neighbours, from 1 to N.

    Returns:
        Two arrays ``[N - window + 1]``, ascending in ``x``.
    """
    order = np.argsort(x, kind="stable")
    x_windows, y_windows = (np.lib.stride_tricks.sliding_window_view(values[order], window) for values in (x, y))
    return np.median(x_windows, axis=1), np.median(y_windows, axis=1)


def costs(table: Table, shown: int) -> Group:
    """Accuracy and Dice, as far as the runs have them, against parameters and against training time."""
    panels = []
    for name in ("accuracy", "dice"):
        for title, known in {
            "parameters (millions)": [(words.number(row.run.summary.parameters) or 0) / 1e6 for row in table.rows],
            "training time (s)": [words.number(row.run.summary.seconds.get("fit")) or 0 for row in table.rows],
        }.items():
            points = [
                (row, cost, value)
                for row, cost in zip(table.rows, known, strict=True)
                if (value := row.metric(f"test/{name}")) is not None and cost > 0
            ]
            if len({cost for _, cost, _ in points}) > 1 and not table.evaluated:
                panels.append(_scatter(f"Test {name} against {title}", title, points, shown))
    caption = "The number beside a point is the run's rank by validation: see the table."
    return Group("Quality against cost", caption, tuple(panels))


def _scatter(title: str, cost: str, points: Sequence[tuple[Row, float, float]], shown: int) -> Panel:
    x, y = [x for _, x, _ in points], [y for _, _, y in points]
    ranks = [f"{row.rank or ''}" if i < shown else "" for i, (row, _, _) in enumerate(points)]
    log = cost.startswith("parameters") or max(x) > 10 * min(x)
    plot = Plot((Series(x, y, 0, False, "o", words=ranks),), Axis(cost, log=log), Axis(""), 2.6)
    told = "; ".join(f"rank {row.rank}: {words.figure(y)} at {words.short(x)}" for row, x, y in points[:shown])
    return Panel(title, (plot,), f"{title}. {told}")
