"""Findings and cards as HTML; whatever comes from a file or a run is escaped here."""

from collections.abc import Sequence
from html import escape

from busi_lab.app.about import LIMITS, About
from busi_lab.app.findings import Finding
from busi_lab.app.pictures import data_uri, heat_layer, mask_layer, outline_layer, scan_picture, shown_size
from busi_lab.app.uploads import Upload
from busi_lab.app.words import (
    PRIVACY,
    measure_rows,
    probability_note,
    probability_rows,
    set_sentence,
)
from busi_lab.data.scan import Mask, Scan
from busi_lab.report.words import NOT_A_DEVICE

HEAD = f"""<header class="busi-head"><h1>busi-lab</h1>
<p class="busi-notice" role="note">{NOT_A_DEVICE}</p><p class="busi-small">{PRIVACY}</p></header>"""
EMPTY = '<p class="busi-empty">Choose a scan, or try a phantom.</p>'


def findings_markup(upload: Upload, scan: Scan, findings: Sequence[Finding]) -> str:
    """What all models make of a scan, side by side where there is room."""
    height, width = scan.pixels.shape
    cut = ", of the first frames of the file; those behind them are left out" if upload.cut else ""
    spacing = "pixel spacing not known" if scan.spacing is None else f"{scan.spacing[0]:.3g} mm per pixel"
    if scan.spacing is None and scan.regions:
        spacing = "pixel spacing differs between regions"
    title = f"{escape(_title(upload, scan))}{cut} <small>{width} x {height} pixels, {spacing}</small>"
    picture = data_uri(scan_picture(scan.pixels))
    cards = "".join(_finding(finding, scan, picture) for finding in findings)
    return f'<h2 class="busi-title">{title}</h2><div class="busi-models">{cards}</div>'


def _finding(finding: Finding, scan: Scan, picture: str) -> str:
    parts = [f"<h3>{escape(finding.model.name)}</h3>", _warnings(finding), _stack(finding, scan, picture)]
    if finding.probabilities is not None:
        bars = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td class="busi-number">{share:.1%}</td>'
            f'<td class="busi-bar"><span style="width:{100 * share:.1f}%"></span></td></tr>'
            for name, share in probability_rows(finding)
        )
        note = escape(probability_note(finding))
        parts.append(f"<table><caption>Class probabilities, {note}</caption><tbody>{bars}</tbody></table>")
    if sentence := set_sentence(finding):
        parts.append(f'<p class="busi-set">{escape(sentence)}</p>')
    if rows := measure_rows(finding):
        parts.append(_table("Lesion outline", rows))
    off = "".join(f"<li>{escape(sentence)}</li>" for sentence in finding.model.off)
    parts.append(f'<details class="busi-small"><summary>Not checked here</summary><ul>{off}</ul></details>')
    return f'<article class="busi-model">{"".join(parts)}</article>'


def _warnings(finding: Finding) -> str:
    if not finding.warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in finding.warnings)
    return f'<ul class="busi-warnings" role="alert">{items}</ul>'


def _stack(finding: Finding, scan: Scan, picture: str) -> str:
    """The scan with its layers, whose opacity is a property of the page."""
    height, width = shown_size(scan.pixels.shape)
    layers = ""
    if finding.heat is not None:
        layers += f'<img class="busi-heat" src="{data_uri(heat_layer(finding.heat))}" alt="">'
    words = ["the scan"]
    if finding.prediction.mask is not None:
        layers += f'<img class="busi-outline" src="{data_uri(outline_layer(finding.prediction.mask))}" alt="">'
        words.append(f"the outline of {finding.model.name}: {dict(measure_rows(finding))['lesions']}")
    alt = escape(" with ".join(words), quote=True)
    return f'<div class="busi-stack" style="{_shape(width, height)}"><img src="{picture}" alt="{alt}">{layers}</div>'


def _shape(width: int, height: int) -> str:
    """A box for a picture that leaves room for words below it."""
    return f"aspect-ratio:{width}/{height};max-width:max(18rem,calc(65vh*{width / height:.3f}))"


def _table(caption: str, rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f"<table><caption>{caption}</caption><tbody>{body}</tbody></table>"


def drawing_markup(upload: Upload, scan: Scan, mask: Mask) -> str:
    """A scan with a mask that can be drawn on, by ``drawing.js``."""
    height, width = shown_size(scan.pixels.shape)
    tools = "".join(
        f'<button type="button" data-{kind}="{name}">{words}</button>'
        for kind, name, words in (
            ("tool", "brush", "Brush"),
            ("tool", "fill", "Outline, filled"),
            ("tool", "eraser", "Eraser"),
            ("act", "undo", "Undo"),
            ("act", "clear", "Clear"),
        )
    )
    wide = max(2, width // 60)
    return (
        f'<div class="busi-drawing"><h2 class="busi-title">{escape(_title(upload, scan))}</h2>'
        f'<div class="busi-tools" role="toolbar" aria-label="Tools">{tools}<label>Width '
        f'<input type="range" min="1" max="{max(20, width // 12)}" value="{wide}"></label></div>'
        f'<div class="busi-stack" style="{_shape(width, height)}">'
        f'<img src="{data_uri(scan_picture(scan.pixels))}" alt="the scan">'
        f'<canvas width="{width}" height="{height}" aria-label="the mask"></canvas></div>'
        f'<img class="busi-mask" hidden src="{data_uri(mask_layer(mask))}" alt=""></div>'
    )


def _title(upload: Upload, scan: Scan) -> str:
    """The name of a file, and which frame of it."""
    return upload.name + (f", frame {(scan.frame or 0) + 1} of {upload.frames}" if upload.several else "")


def complaint_markup(message: str) -> str:
    """One line on what is wrong with an input."""
    return f'<p class="busi-complaint" role="alert">{escape(message)}</p>'


def said_markup(message: str) -> str:
    """One line on what was done."""
    return f'<p class="busi-said" role="status">{escape(message)}</p>'


def about_markup(name: str, card: About) -> str:
    """What is known of a model."""
    figures = "".join(
        f'<tr><th scope="row">{escape(what)}</th><td>{escape(value)}</td><td>{escape(interval)}</td></tr>'
        for what, value, interval in card.figures
    )
    head = "<thead><tr><th></th><th>test</th><th>95 % interval</th></tr></thead>"
    table = f"<table><caption>Figures</caption>{head}<tbody>{figures}</tbody></table>" if figures else ""
    lists = "".join(
        f"<h4>{title}</h4><ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"
        for title, sentences in (("Not checked here", card.off), ("Limits", LIMITS))
    )
    rows = _table("What it is", card.rows)
    return f'<article class="busi-model"><h3>{escape(name)}</h3>{rows}{table}{lists}</article>'
