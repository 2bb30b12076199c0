"""All plots of a table in the HTML report; test metrics, ROC and learning curves and costs are drawn here."""

from collections.abc import Iterable, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from busi_lab.report.blocks import Pooled
from busi_lab.report.clinical_plots import draw_clinical, draw_subject
from busi_lab.report.masks import draw_masks
from busi_lab.report.plots import METRIC_GROUPS, PANELS_SHOWN, SHOWN, axis_limits, set_scale
from busi_lab.report.predictions import Roc, read_predictions
from busi_lab.report.svg import BAR, LINES, MUTED, STYLE, WIDTH, Group, Panel, inline_svg, new_figure, numbered, shorten
from busi_lab.report.tables import Row, Table, number
from busi_lab.run_directory import CLASSES


def draw_groups(table: Table) -> list[Group]:
    """All plots of a table; a group without data is left out."""
    kinds = (_bars, draw_masks, _roc_curves, draw_clinical, _learning_curves, _costs)
    with matplotlib.rc_context(STYLE):
        return numbered([kind(table) for kind in kinds], f"t{table.number}")


def draw_pooled(pooled: Pooled, index: int) -> list[Group]:
    """The plots of the first experiment of ``pooled``, the page's ``index``-th."""
    with matplotlib.rc_context(STYLE):
        return numbered([draw_subject(pooled.subject, f"All folds of {pooled.subject.label}.")], f"f{index}")


def _bars(table: Table) -> Group:
    """A panel a metric, a bar a run."""
    panels = []
    for name in (name for group in METRIC_GROUPS for name in group):
        known = [(row, value) for row in table.rows if (value := row.metric(f"test/{name}")) is not None][:SHOWN]
        if not known:
            continue
        figure, ax = new_figure(0.36 * len(known) + 0.4, 0.12, 0.3)
        ax.barh(range(len(known)), [value for _, value in known], 0.34, color=BAR)
        for i, (row, value) in enumerate(known):
            ax.text(0, i - 0.27, shorten(row.label, 38), va="bottom", fontsize=9)
            ax.text(1, i - 0.27, f"{value:.3f}", va="bottom", ha="right", fontsize=9)
            if name in row.published:
                ax.plot(row.published[name], i, "D", color="black", markeredgecolor="white", clip_on=False)
        ax.set(xlim=(0, 1), ylim=(len(known) - 0.6, -0.72), yticks=[])
        ax.spines["left"].set_visible(False)
        ax.grid(axis="y", visible=False)
        best = ", ".join(f"{row.label} {value:.3f}" for row, value in known[:3])
        panels.append(Panel(name, inline_svg(figure), f"{name} on the test set, best by validation first: {best}"))
    paper = " The diamond is the paper's figure." if any(row.published for row in table.rows) else ""
    return Group("Test metrics", f"{_selection(table, SHOWN)}{paper}", tuple(panels))


def _selection(table: Table, shown: int) -> str:
    """How the runs in a group of panels were chosen."""
    count = len(table.rows)
    return f"Best by validation first{f', {shown} of {count} runs' if count > shown else ''}."


def _roc_curves(table: Table) -> Group:
    """One against rest for the best run that has predictions; malignant against rest for all."""
    found = [(row, known) for row in table.rows[:SHOWN] if (known := read_predictions(row.run)) is not None]
    panels = []
    if found:
        row, best = found[0]
        curves = [(name, best.roc(name)) for name in CLASSES]
        panels.append(_roc_panel(f"{row.label}: each class against the rest", curves, len(CLASSES)))
    if len(found) > 1:
        curves = [(row.label, known.roc("malignant")) for row, known in found]
        panels.append(_roc_panel("All runs: malignant against the rest", curves, len(LINES)))
    caption = "From the probabilities in predictions.csv; AUC is the area under the curve: 0.5 is chance, 1 is perfect."
    return Group("ROC curves", caption, tuple(panel for panel in panels if panel))


def _roc_panel(title: str, curves: Iterable[tuple[str, Roc | None]], coloured: int) -> Panel | None:
    """The first ``coloured`` curves in colours of their own, further ones in gray."""
    known = [(label, curve) for label, curve in curves if curve is not None]
    if not known:
        return None
    figure, ax = new_figure(WIDTH, 0.5, 0.45)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, dashes=(2, 3))
    for i, (_, curve) in reversed(list(enumerate(known))):
        colour, dash = LINES[i] if i < coloured else (MUTED, "-")
        width = 1.8 if i < coloured else 0.7
        ax.plot(curve.false_positive_rate, curve.true_positive_rate, color=colour, linestyle=dash, linewidth=width)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="false positive rate", ylabel="true positive rate")
    legend = [(i, f"{label}: AUC {curve.auc:.3f}") for i, (label, curve) in enumerate(known[:coloured])]
    if others := [curve.auc for _, curve in known[coloured:]]:
        most = f" to {max(others):.3f}" if len(others) > 1 else ""
        legend.append((-1, f"{len(others)} more in gray: AUC {min(others):.3f}{most}"))
    alt = f"ROC curves. {'; '.join(words for _, words in legend)}"
    return Panel(title, inline_svg(figure), alt, tuple(legend))


def _learning_curves(table: Table) -> Group:
    """A panel a run: the objective above the losses, one scale for all."""
    objective = [table.metric] if table.metric != "val/loss" else []
    losses = ["train/loss", "val/loss"]
    curves = [(row, {name: row.curve(name) for name in [*objective, *losses]}) for row in table.rows[:PANELS_SHOWN]]
    curves = [(row, lines) for row, lines in curves if any(epochs for epochs, _ in lines.values())]
    groups = [names for names in (objective, losses) if names]
    limits = [axis_limits([v for _, lines in curves for name in names for v in lines[name][1]]) for names in groups]
    figure = Figure(figsize=(WIDTH, 1.5 * len(groups) + 0.4))
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    figure.subplots_adjust(
        left=0.55 / WIDTH,
        right=1 - 0.12 / WIDTH,
        top=1 - 0.2 / figure.get_figheight(),
        bottom=0.42 / figure.get_figheight(),
        hspace=0.24,
    )
    drawn: dict[str, Line2D] = {}
    best_epoch = []
    for ax, names, limit in zip(axes, groups, limits, strict=True):
        for name in names:
            colour, dash = LINES[[*losses, table.metric].index(name)]
            (drawn[name],) = ax.plot([], [], color=colour, linestyle=dash, linewidth=1.6, markersize=4)
        best_epoch.append(ax.axvline(color=MUTED, linestyle=":", linewidth=1))
        set_scale(ax, *limit)
        ax.set_title("loss" if names == losses else table.metric, loc="left", fontsize=9, pad=3)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    panels = []
    for row, lines in curves:  # one figure for all, because axes and ticks cost more than what changes
        last = max(max(epochs, default=0.0) for epochs, _ in lines.values())
        axes[-1].set_xlim(-0.03 * last - 0.5, 1.03 * last + 0.5)
        for name, line in drawn.items():
            line.set_data(*lines[name])
            line.set_marker("o" if len(lines[name][0]) == 1 else "")  # one epoch makes no line
        best = number(row.run.summary.best_epoch)
        for upright in best_epoch:
            upright.set_visible(best is not None)
            upright.set_xdata([best or 0.0] * 2)
        epochs = max(len(line) for line, _ in lines.values())
        alt = f"Learning curves of {row.label} over {epochs} epochs; best epoch {row.run.summary.best_epoch}"
        panels.append(Panel(row.label, inline_svg(figure), alt))
    caption = f"{_selection(table, PANELS_SHOWN)} One scale for all; the dotted upright line is the best epoch."
    legend = [*((2, name) for name in objective), (0, "training loss"), (1, "validation loss")]
    return Group("Learning curves", caption, tuple(panels), tuple(legend))


def _costs(table: Table) -> Group:
    """Accuracy and Dice, as far as the runs have them, against parameters and against training time."""
    names = [name for name in ("accuracy", "dice") if any(row.metric(f"test/{name}") is not None for row in table.rows)]
    panels = []
    for name in names:
        for title, costs in {
            "parameters (millions)": [(number(row.run.summary.parameters) or 0) / 1e6 for row in table.rows],
            "training time (s)": [number(row.run.summary.seconds.get("fit")) or 0 for row in table.rows],
        }.items():
            points = [
                (row, cost, value)
                for row, cost in zip(table.rows, costs, strict=True)
                if (value := row.metric(f"test/{name}")) is not None and cost > 0
            ]
            if len({cost for _, cost, _ in points}) > 1:
                panels.append(_scatter(f"Test {name} against {title}", title, points))
    caption = "The number beside a point is the run's rank by validation: see the table."
    return Group("Quality against cost", caption, tuple(panels))


def _scatter(title: str, cost: str, points: Sequence[tuple[Row, float, float]]) -> Panel:
    figure, ax = new_figure(2.6, 0.5, 0.45)
    costs, values = [x for _, x, _ in points], [y for _, _, y in points]
    ax.plot(costs, values, "o", color=LINES[0][0], markersize=6, markeredgecolor="white")
    for row, x, y in points[:SHOWN]:
        ax.annotate(f"{row.rank or ''}", (x, y), (4, 3), textcoords="offset points", fontsize=9)
    ax.margins(0.12)
    if cost.startswith("parameters") or max(costs) > 10 * min(costs):
        low, high = min(costs), max(costs)
        room = max((high / low) ** 0.12, 1.6)
        ax.set_xscale("log")
        ax.set_xlim(low / room, high * room)
        steps = (1, 2, 5) if high / low < 100 else (1,)
        ax.xaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(cost)
    shown = "; ".join(f"rank {row.rank}: {y:.3f} at {x:.3g}" for row, x, y in points[:SHOWN])
    return Panel(title, inline_svg(figure), f"{title}. {shown}")
