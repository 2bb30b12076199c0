"""Pictures and a table of a dataset: class balance, sizes, sample scans, groups of near-identical scans.

Drawn without pyplot, so on any machine and with no global state. Colours are Okabe & Ito's, which
colour-blind readers can tell apart.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from busi_lab.classes import Classes
from busi_lab.data.groups import Group
from busi_lab.data.index import Case, Index, read_case
from busi_lab.data.splits import make_manifest
from busi_lab.errors import UserError

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "o^sDvP"
OUTLINE = "#F0E442"
SCANS_PER_CLASS = 6
DPI = 120  # pixels an inch
_TILE = (180, 230)  # height and width of a scan among its group, pixels
_TILES_A_ROW = 8
_GROUPS_A_PAGE = 20
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar in a file name is a dollar
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.1,  # inches
    "figure.constrained_layout.h_pad": 0.06,
}


def draw(index: Index) -> dict[str, bytes]:
    """Draw a dataset.

    Returns:
        File name -> PNG.

    Raises:
        UserError: a class has too few images for the published split.
    """
    plots: dict[str, Callable[[Index], Figure]] = {
        "classes.png": class_distribution,
        "sizes.png": sizes,
        "scans.png": contact_sheet,
    }
    pictures = {}
    with matplotlib.rc_context(_STYLE):
        for name, plot in plots.items():
            buffer = BytesIO()
            plot(index).savefig(buffer, format="png", dpi=DPI)
            pictures[name] = buffer.getvalue()
    return pictures


def training_counts(index: Index) -> dict[str, int]:
    """Images of each class of the dataset in the published split's training set.

    Raises:
        UserError: a class has too few images for that split, or no image has a class.
    """
    if not any(index.counts.values()):
        raise UserError(
            f"{index.root}: no image has a label; expected some of {', '.join(index.classes.names)} to describe"
        )
    labels = {case.case_id: case.label for case in index.cases}
    used = [labels[case_id] for case_id in make_manifest(index, "published").train]
    return {label: used.count(label) for label in index.classes.names if index.counts[label]}


def table(index: Index) -> str:
    """The figures behind the pictures, as aligned text.

    Raises:
        UserError: a class has too few images for the published split.
    """
    counts = training_counts(index)
    total = sum(counts.values())
    rows = [["class", "images", "train", "share", "balanced", "draws/image", "width x height", "lesion area"]]
    for label, count in counts.items():
        cases = [case for case in index.cases if case.label == label]
        width, height = (int(np.median([getattr(case, side) for case in cases])) for side in ("width", "height"))
        areas = _lesion_shares(cases)
        rows.append(
            [
                *(label, str(len(cases)), str(count), f"{count / total:.1%}", f"{1 / len(counts):.1%}"),
                *(f"{total / len(counts) / count:.2f}", f"{width} x {height}"),
                f"{np.median(areas):.1%}" if areas else "-",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(
        f"train, share: the published split's training set, {total} images. balanced: the share of an epoch of as "
        "many draws\nwith class-balanced sampling. Sizes and lesion areas are medians; areas of images with a lesion."
    )
    return "\n".join(lines)


def _look(classes: Classes, label: str, looks: Sequence[str]) -> str:
    """The colour or the marker of a class; black for a scan whose class is not known."""
    return looks[classes.number(label) % len(looks)] if label else "black"


def _lesion_shares(cases: Sequence[Case]) -> list[float]:
    """Lesion area over image area, of the images that have a lesion."""
    return [case.lesion_pixels / (case.height * case.width) for case in cases if case.lesion_pixels]


def class_distribution(index: Index) -> Figure:
    """Classes of an epoch before and after class-balanced sampling.

    The arithmetic of ``EpochSampler``: an epoch of as many draws as there are training images, an equal share
    from each class.
    """
    counts = training_counts(index)
    total = sum(counts.values())
    drawn = {
        f"as it is: each of {total} images once": dict.fromkeys(counts, 1.0),
        f"balanced: {total} draws, as many from each class": {
            label: total / len(counts) / count for label, count in counts.items()
        },
    }
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    figure.suptitle(f"Classes of a training epoch (example: the published split's training set, {total} images)")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (title, draws) in zip(panels, drawn.items(), strict=True):
        for position, label in enumerate(counts):
            height = draws[label] * counts[label]
            axes.bar(position, height, width=0.65, color=_look(index.classes, label, _COLOURS))
            each = "" if draws[label] == 1 else f"\neach {draws[label]:.2f} times"
            axes.annotate(
                f"{height:.0f} ({height / total:.1%}){each}",
                (position, height),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.set_xticks(range(len(counts)), list(counts))
        axes.tick_params(axis="x", length=0)
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.16)
    panels[0].set_ylabel("draws in an epoch")
    return figure


def sizes(index: Index) -> Figure:
    """Width and height of every scan, and the share of it that lesions cover."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    figure.suptitle(f"Sizes of {len(index.cases)} scans and of their lesions")
    scatter, histogram = figure.subplots(1, 2)
    for label in index.classes.names:
        cases = [case for case in index.cases if case.label == label]
        scatter.scatter(
            [case.width for case in cases],
            [case.height for case in cases],
            s=16,
            marker=_look(index.classes, label, _MARKERS),
            color=_look(index.classes, label, _COLOURS),
            alpha=0.55,
            linewidth=0,
            label=f"{label} ({len(cases)})",
        )
    scatter.set(xlabel="width, pixels", ylabel="height, pixels", xlim=(0, None), ylim=(0, None))
    scatter.legend(frameon=False)
    _lesion_histogram(histogram, index.cases, index.classes)
    return figure


def _lesion_histogram(axes: Axes, cases: Sequence[Case], classes: Classes) -> None:
    areas = {label: _lesion_shares([c for c in cases if c.label == label]) for label in classes.lesions}
    highest = max((max(values) for values in areas.values() if values), default=0.5)
    for (label, values), style in zip(areas.items(), itertools.cycle(("-", "--", "-.", ":"))):
        if values:
            axes.hist(
                values,
                bins=np.linspace(0, highest, 26).tolist(),
                weights=np.full(len(values), 1 / len(values)),
                histtype="step",
                linewidth=1.8,
                linestyle=style,
                color=_look(classes, label, _COLOURS),
                label=f"{label} ({len(values)}), median {np.median(values):.1%}",
            )
    axes.set(xlabel="lesion area, share of the scan", ylabel="share of the class's scans", xlim=(0, highest))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if any(areas.values()):
        axes.legend(frameon=False)


def contact_sheet(index: Index) -> Figure:
    """Some scans of each class, evenly spread over it, with the lesion's outline."""
    figure = Figure(figsize=(2 * SCANS_PER_CLASS, 2.05 * len(index.classes) + 0.4), layout="constrained")
    figure.suptitle("Scans evenly spread over each class, lesion outlined")
    grid = figure.subplots(len(index.classes), SCANS_PER_CLASS, squeeze=False)
    for line, label in zip(grid, index.classes.names, strict=True):
        cases = [case for case in index.cases if case.label == label]
        spread = np.linspace(0, len(cases) - 1, min(SCANS_PER_CLASS, len(cases))).round().astype(int)
        for axes in line:
            axes.set(xticks=[], yticks=[], frame_on=False, anchor="S")
        for axes, number in zip(line, spread, strict=False):
            image, mask = read_case(index.root, cases[number])
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            if mask.any():
                rows, columns = (np.arange(-1, side + 1) for side in mask.shape)  # a margin closes every outline
                axes.contour(columns, rows, np.pad(mask, 1), levels=[0.5], colors=[OUTLINE], linewidths=1.2)
            axes.set_xlabel(cases[number].case_id, fontsize=9, labelpad=3)
    return figure


def draw_groups(groups: Sequence[Group], index: Index) -> Iterator[bytes]:
    """Draw the groups, lesions outlined, 20 a page; a caption has the case id and the similarity. Yields PNG files.

    Raises:
        UserError: a file has become unreadable since it was indexed.
    """
    high, wide = _TILE
    line = high + 52  # room for a heading and a caption
    for start in range(0, len(groups), _GROUPS_A_PAGE):
        page = groups[start : start + _GROUPS_A_PAGE]
        places: list[tuple[Group, Case, int]] = []  # the number of the place, row by row
        place = 0
        for group in page:
            if place % _TILES_A_ROW + len(group.cases) > _TILES_A_ROW and place % _TILES_A_ROW:
                place += _TILES_A_ROW - place % _TILES_A_ROW
            places += [(group, case, place + offset) for offset, case in enumerate(group.cases)]
            place += len(group.cases)
        rows = -(-place // _TILES_A_ROW)
        width, height = _TILES_A_ROW * (wide + 10), rows * line + 40
        with matplotlib.rc_context({"text.parse_math": False, "font.size": 7}):
            figure = Figure(figsize=(width / DPI, height / DPI), facecolor="white")
            axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
            axes.axis("off")
            last = page[-1].number
            axes.text(8, 22, f"Near-identical images: groups {page[0].number} to {last} of {len(groups)}", fontsize=10)
            for group, case, place in places:
                top, left = 40 + place // _TILES_A_ROW * line + 20, place % _TILES_A_ROW * (wide + 10) + 5
                axes.imshow(_tile(index, case), extent=(left, left + wide, top + high, top), aspect="auto")
                caption = f"{case.case_id}  {group.similarity[case.case_id]:.2f}"
                axes.text(left, top + high + 15, caption, color=_look(index.classes, case.label, _COLOURS))
                if case is group.cases[0]:
                    conflict = f": {group.conflict} conflict" if group.conflict else ""
                    axes.text(left, top - 5, f"group {group.number}{conflict}", fontweight="bold")
                    axes.plot([left - 5, left - 5], [top - 16, top + high + 18], color="black", linewidth=1)
            axes.set(xlim=(0, width), ylim=(height, 0))
            buffer = BytesIO()
            figure.savefig(buffer, format="png", dpi=DPI)
        yield buffer.getvalue()


def _tile(index: Index, case: Case) -> NDArray[np.uint8]:
    """A scan with its outlined lesion on a white tile, uint8 ``[H, W, 3]``."""
    high, wide = _TILE
    image, mask = read_case(index.root, case)
    scale = min(high / case.height, wide / case.width)
    size = max(1, round(case.width * scale)), max(1, round(case.height * scale))
    picture = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    lesion = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours = cv2.findContours(lesion, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(picture, contours, -1, tuple(bytes.fromhex(OUTLINE[1:])), 1)
    tile = np.full((high, wide, 3), 255, np.uint8)
    tile[: size[1], : size[0]] = picture
    return tile
