"""Figures of a run as pictures, for trackers that draw none themselves: uint8 ``[H, W, 3]``.

matplotlib is used without its global state, and only where a figure is drawn.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from busi_lab.report.figures.curves import class_curves, matrix_panel
from busi_lab.report.figures.shapes import Group, Panel
from busi_lab.report.results.cases import Cases
from busi_lab.tracking import panels
from busi_lab.tracking.protocol import Result, Shown

Picture = NDArray[np.uint8]

_COLUMNS = 4
_SIDE = 320  # pixels, to which small scans are enlarged, so that outlines stay thin
_MATRIX = "Test: actual and predicted"
_OUTLINES = "outlines: true dashed, orange; predicted blue"


def result_pictures(result: Result) -> Iterator[tuple[str, Picture]]:
    """All figures of a result under the names that W&B has for them."""
    cases = panels.cases_of(result)
    if cases is not None and cases.probabilities is not None:
        yield "test/confusion_matrix", _drawn(matrix_panel(_MATRIX, cases.classes.names, cases.counts().tolist()))
        for key, panel in class_curves(cases).items():
            yield f"test/{key}", _drawn(panel)
        if mistakes := panels.worst_mistakes(cases):
            yield "test/worst_mistakes", _sheet("", [(result.pictures[name], words) for name, words in mistakes])
    if cases is not None and result.predicted_masks:
        for name, chosen in panels.mask_cases(cases).items():
            masks = [
                (_outlined(result.pictures[image], result.true_masks[image], result.predicted_masks[image]), caption)
                for image, caption in chosen
            ]
            yield f"test/masks_{name}", _sheet(_OUTLINES, masks)
    if cases is not None and result.explanations and result.explanations.is_dir():
        for folder in sorted(result.explanations.iterdir()):
            yield f"test/{folder.name}", _explanations(result, cases, folder)


def mask_sheet(shown: Shown) -> Picture:
    """Validation scans with the outlines of true and predicted masks."""
    return _sheet(_OUTLINES, [(_outlined(picture, truth, mask), case_id) for case_id, picture, truth, mask in shown])


def _drawn(panel: Panel) -> Picture:
    """A figure of the report's, with its title and legend."""
    from busi_lab.report.figures.png import sheet

    return _rendered(sheet(Group("", "", (panel,))))


def _explanations(result: Result, cases: Cases, folder: Path) -> Picture:
    """Maps of what speaks for the predicted class, for the most confident mistakes and right answers."""
    from busi_lab.report.figures.overlay import draw_heat  # brings OpenCV

    shown = []
    for image, caption in panels.explained_cases(cases):
        heat = np.asarray(Image.open(folder / f"{image}.png")) / 255
        shown.append((np.asarray(draw_heat(result.pictures[image], heat, None)), caption))
    return _sheet("", shown)


def _outlined(picture: Any, truth: Any, predicted: Any) -> NDArray[Any]:
    from busi_lab.report.figures.overlay import PREDICTED, TRUE, outline

    factor = -(-_SIDE // picture.shape[1])
    large = Image.fromarray(picture).convert("RGB")
    large = large.resize((large.width * factor, large.height * factor), Image.Resampling.NEAREST)
    outline(large, np.asarray(predicted, bool), PREDICTED)
    outline(large, np.asarray(truth, bool), TRUE, dashed=True)
    return np.asarray(large)


def _sheet(title: str, shown: Sequence[tuple[Any, str]]) -> Picture:
    """Scans side by side with words above each."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, max(1, len(shown)))
    lines = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(2.4 * columns, 2.8 * lines), layout="constrained")
    figure.suptitle(title, fontsize=8)
    for number, (picture, caption) in enumerate(shown, start=1):
        ax = figure.add_subplot(lines, columns, number)
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
        ax.set_title(caption.replace(": ", ":\n", 1), fontsize=7, parse_math=False)
        ax.set_axis_off()
    return _rendered(figure)


def _rendered(figure: Any) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels: Picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return pixels
