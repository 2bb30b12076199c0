"""Drawing for the HTML report: plots as inline SVG, each as wide as a phone; the page sets them side by side.

Colours are tokens of the page's style sheet, so that the same drawing serves light, dark and print; lines differ in
dashes as well. The words of a legend stand in the page, where they can wrap.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

LINES = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", "-."), ("#a8578a", ":"), ("#8a6d00", (0, (6, 2, 1, 2, 1, 2))))
"""Colours after Okabe & Ito, darkened where white paper needs it, each with its dash."""

WIDTH = 3.4  # inches
MUTED, GRID, BAR = "#707070", "#e0e0e0", "#56b4e9"
_TOKENS = {
    "#000000": "currentColor",
    "#ffffff": "var(--page)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    BAR: "var(--bar)",
    **{colour: f"var(--line{i})" for i, (colour, _) in enumerate(LINES)},
}
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar in a run's name is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "busi-lab",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
}


@dataclass(frozen=True)
class Panel:
    """One plot: inline SVG, what it shows for those who cannot see it, and its legend as (line number, words)."""

    title: str
    svg: str
    alt: str
    legend: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Group:
    """Panels that belong together, with the sentence that explains them and the legend that they share."""

    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[int, str], ...] = ()


def new_figure(height: float, left: float, bottom: float, top: float = 0.1) -> tuple[Figure, Axes]:
    """A figure of the common width with one axes; sizes in inches."""
    figure = Figure(figsize=(WIDTH, height))
    sides = (left / WIDTH, bottom / height, (WIDTH - left - 0.15) / WIDTH, (height - bottom - top) / height)
    return figure, figure.add_axes(sides)


def inline_svg(figure: Figure) -> str:
    """The figure as inline SVG: colours as tokens, the page's font, no identifiers but those that are used."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = re.sub(r"<style.*?</style>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    drawing = re.sub(r"<[^>]*>", lambda tag: _clean(tag.group()), drawing)
    return re.sub(r">\s+<", "><", drawing)


def _clean(tag: str) -> str:
    tag = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"| font-family: [^;"]*;?', "", tag)
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag).replace("xlink:href", "href").replace("\n", " ")
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: _TOKENS.get(colour.group(), colour.group()), tag)


def _prefix_ids(drawing: str, prefix: str) -> str:
    """Make the identifiers of clip paths and markers unique in the page."""
    return re.sub(r'( id="|href="#|url\(#)(?=[^<]*>)', rf"\g<1>{prefix}", drawing)


def numbered(groups: Sequence[Group], prefix: str) -> list[Group]:
    """``groups`` without empty ones; identifiers begin with ``prefix``, so that no other plot of the page has them."""
    kept: list[Group] = []
    for group in groups:
        panels = [
            replace(panel, svg=_prefix_ids(panel.svg, f"{prefix}g{len(kept)}p{i}-"))
            for i, panel in enumerate(group.panels)
        ]
        if panels:
            kept.append(replace(group, panels=tuple(panels)))
    return kept


def shorten(label: str, length: int) -> str:
    """``label`` with its middle cut out where it is longer than ``length`` characters."""
    half = (length - 1) // 2
    return label if len(label) <= length else f"{label[:half]}…{label[-half:]}"
