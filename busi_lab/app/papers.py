"""The files of a finding: JSON, the masks, and one page to print."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from busi_lab.app.findings import Finding
from busi_lab.app.pictures import outline_layer, png, scan_picture
from busi_lab.app.uploads import Upload
from busi_lab.app.words import measure_rows, probability_note, probability_rows, set_sentence
from busi_lab.data.scan import Scan
from busi_lab.files import write_atomically, write_json
from busi_lab.inference.scans import ScanFile
from busi_lab.inference.writer import record_of
from busi_lab.report.words import NOT_A_DEVICE, shortened

_A4 = 8.27, 11.69  # inches
_LINE = 92  # characters of a line across the page


def write_papers(
    folder: Path, upload: Upload, scan: Scan, findings: Sequence[Finding], page: bool = True
) -> list[Path]:
    """Write the files of what models make of a scan into a folder; returns their paths. ``page`` asks for PDF, too.

    Names of files hold nothing that a visitor has typed.
    """
    found = [folder / "result.json"]
    file = ScanFile(Path(upload.name), "scan")
    models = [
        {
            "model": finding.model.name,
            **record_of(file, scan, finding.prediction, {}),
            "calibrated_probabilities": finding.probabilities if finding.model.temperature is not None else None,
            "warnings": list(finding.warnings),
            "off": list(finding.model.off),
        }
        for finding in findings
    ]
    write_json(found[0], {"notice": NOT_A_DEVICE, "models": models})
    for finding in findings:
        if finding.prediction.mask is not None:
            found.append(folder / f"mask-{plain_name(finding.model.name)}.png")
            write_atomically(found[-1], png(Image.fromarray(finding.prediction.mask)), sync=False)
    if not page:
        return found
    found.append(folder / "report.pdf")
    draw_page(upload, scan, findings).savefig(found[-1], format="pdf", metadata={"CreationDate": None})
    return found


def plain_name(name: str) -> str:
    """A name as a part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "model"


def draw_page(upload: Upload, scan: Scan, findings: Sequence[Finding]) -> Figure:
    """One page of A4: the scan with each model's outline, and what it says."""
    figure = Figure(figsize=_A4)
    frame = "" if scan.frame is None or not upload.several else f", frame {scan.frame + 1} of {upload.frames}"
    height, width = scan.pixels.shape
    _text(figure, 0.06, 0.965, shortened(upload.name, 60) + frame, 14, weight="bold")
    _text(figure, 0.06, 0.945, f"{width} x {height} pixels, {_spacing(scan)}", 9)
    _text(figure, 0.06, 0.025, NOT_A_DEVICE, 9, weight="bold")
    columns = 1 if len(findings) == 1 else 2
    rows = -(-len(findings) // columns)
    for number, finding in enumerate(findings):
        left, room = 0.06 + (number % columns) * 0.45, 0.86 / rows
        top = 0.92 - (number // columns) * room
        share = 0.5 if rows == 1 else 0.42  # of the room, for the picture
        axes = figure.add_axes((left, top - room * share, 0.88 / columns - 0.02, room * share - 0.02))
        _draw_scan(axes, scan, finding)
        lines = _lines(finding, _LINE // columns)
        _text(figure, left, top - room * share - 0.015, "\n".join(lines[: 40 // rows]), 9 if columns == 1 else 8)
    return figure


def _draw_scan(axes: Axes, scan: Scan, finding: Finding) -> None:
    picture = scan_picture(scan.pixels).convert("RGBA")
    if finding.prediction.mask is not None:
        picture = Image.alpha_composite(picture, outline_layer(finding.prediction.mask))
    axes.imshow(picture.convert("RGB"), interpolation="antialiased")
    axes.set_axis_off()
    axes.set_anchor("NW")


def _lines(finding: Finding, length: int) -> list[str]:
    lines = [shortened(finding.model.name, length), ""]
    if finding.probabilities is not None:
        lines.append("   ".join(f"{name} {share:.1%}" for name, share in probability_rows(finding)))
        lines.append(f"Class probabilities, {probability_note(finding)}")
    if sentence := set_sentence(finding):
        lines.append(sentence)
    lines += [f"{name}: {value}" for name, value in measure_rows(finding)]
    for warning in finding.warnings:
        lines += ["", *_wrapped(f"! {warning}", length)]
    lines.append("")
    for sentence in finding.model.off:
        lines += _wrapped(f"Off: {sentence}", length)
    return lines


def _wrapped(sentence: str, length: int) -> list[str]:
    return textwrap.wrap(sentence, length, subsequent_indent="  ")


def _spacing(scan: Scan) -> str:
    if scan.spacing is None:
        return "pixel spacing not known"
    return f"{scan.spacing[0]:.4g} x {scan.spacing[1]:.4g} mm per pixel"


def _text(figure: Figure, left: float, top: float, words: str, size: int, weight: str = "normal") -> None:
    shown = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in words)
    figure.text(left, top, shown, fontsize=size, weight=weight, va="top", parse_math=False)
