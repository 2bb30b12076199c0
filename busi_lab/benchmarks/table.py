"""Figures as a table: medians with intervals, and ratios of pairs."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from busi_lab.bench_record import Figure

_DRAWS = 2000
_HEAD = ("figure", "median", "95 % interval", "lowest", "highest", "rounds")


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Interval of a median by the percentile bootstrap (Efron, 1979), with draws that are always the same."""
    values = np.asarray(samples, float)
    drawn = np.random.default_rng(0).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.percentile(np.median(values[drawn], axis=1), [2.5, 97.5])
    return float(low), float(high)


def ratio_of_medians(ours: Figure, theirs: Figure) -> tuple[float, float, float]:
    """Median of ours over median of theirs, which were not measured in turns, with its interval."""
    rng = np.random.default_rng(0)

    def medians(figure: Figure) -> NDArray[np.float64]:
        values = np.asarray(figure.samples, float)
        found: NDArray[np.float64] = np.median(values[rng.integers(0, len(values), (_DRAWS, len(values)))], axis=1)
        return found

    low, high = np.percentile(medians(ours) / medians(theirs), [2.5, 97.5])
    return float(np.median(ours.samples) / np.median(theirs.samples)), float(low), float(high)


def table(figures: Sequence[Figure]) -> list[str]:
    """A Markdown table of all figures."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for figure in figures:
        low, high = median_interval(figure.samples)
        median = float(np.median(figure.samples))
        ends = (min(figure.samples), max(figure.samples))
        interval = f"{short(low)} to {short(high)}" if len(figure.samples) > 2 else "-"
        rows.append(
            (
                f"{figure.part}: {figure.name}",
                f"{short(median)} {figure.unit}",
                interval,
                *map(short, ends),
                str(len(figure.samples)),
            )
        )
    return list(_markdown(rows))


def comparison(ours: Sequence[Figure], theirs: Sequence[Figure]) -> list[str]:
    """A Markdown table of the figures that both records have, ours over theirs; what is sure is said in a word."""
    before = {figure.key: figure for figure in theirs}
    rows: list[tuple[str, ...]] = [("figure", "now", "before", "now / before", "95 % interval", "")]
    for figure in ours:
        if (other := before.get(figure.key)) is None:
            continue
        ratio, low, high = ratio_of_medians(figure, other)
        sure = "" if low <= 1 <= high else "better" if (ratio > 1) == figure.higher else "worse"
        medians = (f"{short(float(np.median(item.samples)))} {item.unit}" for item in (figure, other))
        rows.append((f"{figure.part}: {figure.name}", *medians, f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", sure))
    return list(_markdown(rows))


def short(value: float) -> str:
    """A figure in few digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _markdown(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"
