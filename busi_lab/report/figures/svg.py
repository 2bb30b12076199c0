"""A panel as inline SVG: colours are tokens of the page's style sheet, so it serves light, dark and print."""

import io
import re

import matplotlib

from busi_lab.report.figures.drawing import BAR, BLACK, GRID, HEAT, LINES, MUTED, STYLE, WHITE, draw_panel
from busi_lab.report.figures.shapes import Panel

_TOKENS = {
    BLACK: "currentColor",
    WHITE: "var(--page)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    BAR: "var(--bar)",
    HEAT: "var(--heat)",
    **{colour: f"var(--line{i})" for i, (colour, _) in enumerate(LINES)},
}


def inline_svg(panel: Panel, prefix: str) -> str:
    """The drawing, with the page's font without identifiers but those that are used, which begin with ``prefix``."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context(STYLE):
        draw_panel(panel).savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = re.sub(r"<style.*?</style>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    drawing = re.sub(r"<[^>]*>", lambda tag: _clean(tag.group()), drawing)
    drawing = re.sub(r'( id="|href="#|url\(#)(?=[^<]*>)', rf"\g<1>{prefix}", drawing)
    return re.sub(r">\s+<", "><", drawing)


def _clean(tag: str) -> str:
    tag = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"| font-family: [^;"]*;?', "", tag)
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag).replace("xlink:href", "href").replace("\n", " ")
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: _TOKENS.get(colour.group(), colour.group()), tag)
