"""A search for hyperparameters in pictures: its history, and the objective over each setting."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.figures.shapes import Axis, Group, Mark, Panel, Plot, Rows, Series
from busi_lab.report.results.search import Search


def history(search: Search) -> Group:
    """The value of each trial, and the best so far as a line; beside it, how much each setting mattered."""
    numbers, values = [trial.number for trial in search.complete], [trial.value or 0.0 for trial in search.complete]
    best = [(min if search.mode == "min" else max)(values[: i + 1]) for i in range(len(values))]
    points = Series(numbers, values, 0, line=False, marker="o")
    last = max(numbers, default=1)
    plot = Plot((points, Series(numbers, best, 1)), Axis("trial", -0.5, last + 0.5, whole=True), _scale(values))
    told = f"{len(values)} trials; the best {search.objective} is {words.figure(best[-1])}" if best else "no trials"
    panels = [Panel(f"{search.objective} of the trials", (plot,), told)]
    if search.importance:
        marks = tuple(Mark(key, words.figure(share, 2), bar=share) for key, share in search.importance.items())
        shares = ", ".join(f"{key} {words.figure(share, 2)}" for key, share in search.importance.items())
        panels.append(Panel("importance", (Rows(marks),), f"Importance: {shares}"))
    caption = (
        "A dot is a trial, the line is the best so far. Importance is the share of a setting in what tells the best "
        "trials from the others (PED-ANOVA); with few trials it says little."
    )
    return Group("History and importance", caption, tuple(panels), file="search_history")


def slices(search: Search) -> Group:
    """A panel for each setting: the objective over its value."""
    keys = list(dict.fromkeys(key for trial in search.complete for key in trial.params))
    panels = [_slice(search, key) for key in keys]
    return Group("The objective over each setting", "A point is a trial.", tuple(panels), file="search_slices")


def _slice(search: Search, key: str) -> Panel:
    known = [trial for trial in search.complete if key in trial.params]
    numeric = all(
        isinstance(trial.params[key], int | float) and not isinstance(trial.params[key], bool) for trial in known
    )
    values = [trial.value or 0.0 for trial in known]
    scale = _scale(values)
    if not numeric:
        by_choice: dict[str, list[float]] = {}
        for trial in known:
            by_choice.setdefault(str(trial.params[key]), []).append(trial.value or 0.0)
        low, high = scale.low or 0.0, scale.high or 1.0
        marks = tuple(Mark(name, words.figure(_middle(found)), dots=found) for name, found in by_choice.items())
        told = ", ".join(f"{name} {words.figure(_middle(found))}" for name, found in by_choice.items())
        return Panel(key, (Rows(marks, low, high),), f"Median {search.objective} by {key}: {told}")
    at = [float(trial.params[key]) for trial in known]
    plot = Plot((Series(at, values, 0, line=False, marker="o"),), Axis(key, log=key in search.log), scale)
    best = search.best
    told = f"; best at {best.params.get(key)}" if best is not None else ""
    return Panel(key, (plot,), f"{search.objective} over {key} of {len(known)} trials{told}")


def _middle(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _scale(values: Sequence[float]) -> Axis:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.05 * (high - low) or 0.05
    return Axis("", low - margin, high + margin)
