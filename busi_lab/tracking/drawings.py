"""Figures of a run as pictures, for trackers that draw none themselves: uint8 ``[H, W, 3]``.

matplotlib is used without its global state, and only where a figure is drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from busi_lab.run_directory import CLASSES
from busi_lab.tracking import panels
from busi_lab.tracking.protocol import Result, Shown

Picture = NDArray[np.uint8]

_COLUMNS = 4
_SIDE = 320  # pixels, to which small scans are enlarged, so that outlines stay thin
_OUTLINES = "outlines: true dashed, orange; predicted blue"


def result_pictures(result: Result) -> Iterator[tuple[str, Picture]]:
    """All figures of a result under the names that W&B has for them."""
    if panels.has_classes(result.rows):
        yield "test/confusion_matrix", confusion_matrix(result.rows)
        for key, lines in panels.curves(result.rows).items():
            yield f"test/{key}", _curves(key, lines)
        if mistakes := panels.worst_mistakes(result.rows):
            yield "test/worst_mistakes", _sheet("", [(result.pictures[name], words) for name, words in mistakes])
    if result.predicted_masks:
        for name, cases in panels.mask_cases(result.rows).items():
            masks = [
                (_outlined(result.pictures[image], result.true_masks[image], result.predicted_masks[image]), caption)
                for image, caption in cases
            ]
            yield f"test/masks_{name}", _sheet(_OUTLINES, masks)
    if result.explanations and result.explanations.is_dir():
        for folder in sorted(result.explanations.iterdir()):
            yield f"test/{folder.name}", _explanations(result, folder)


def mask_sheet(shown: Shown) -> Picture:
    """Validation scans with the outlines of true and predicted masks."""
    return _sheet(_OUTLINES, [(_outlined(picture, truth, mask), case_id) for case_id, picture, truth, mask in shown])


def confusion_matrix(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Counts, coloured by their share of the actual class."""
    from matplotlib.figure import Figure

    counts = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(counts, panels.numbered_classes(rows), 1)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (actual, predicted), count in np.ndenumerate(counts):
        colour = "white" if shares[actual, predicted] > 0.5 else "black"
        ax.text(predicted, actual, str(count), ha="center", va="center", color=colour, fontsize=12)
    ax.set_xticks(range(len(CLASSES)), CLASSES)
    ax.set_yticks(range(len(CLASSES)), CLASSES, rotation=90, va="center")
    ax.set(xlabel="predicted", ylabel="actual", title="Test: actual and predicted")
    return _rendered(figure)


def _curves(key: str, lines: Mapping[str, panels.Points]) -> Picture:
    from matplotlib.figure import Figure

    title, x_name, y_name = panels.CURVES[key]
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    ax = figure.add_subplot()
    for (name, points), style in zip(lines.items(), ("-", "--", "-."), strict=False):
        ax.plot(*points, style, label=name)
    ax.set(xlabel=x_name, ylabel=y_name, title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    ax.grid(color="0.9")
    ax.legend()
    return _rendered(figure)


def _explanations(result: Result, folder: Path) -> Picture:
    """Maps of what speaks for the predicted class, for the most confident mistakes and right answers."""
    from busi_lab.report.overlay import draw_heat  # brings OpenCV

    shown = []
    for image, caption in panels.explained_cases(result.rows):
        heat = np.asarray(Image.open(folder / f"{image}.png")) / 255
        shown.append((np.asarray(draw_heat(result.pictures[image], heat, None)), caption))
    return _sheet("", shown)


def _outlined(picture: Any, truth: Any, predicted: Any) -> NDArray[Any]:
    from busi_lab.report.overlay import PREDICTED, TRUE, outline

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
