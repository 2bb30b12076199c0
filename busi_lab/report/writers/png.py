"""Picture files of those figures that have a name."""

from collections.abc import Iterable
from pathlib import Path

from busi_lab.report.sections.section import Section


def write_pictures(sections: Iterable[Section], folder: Path) -> list[str]:
    """Write them; returns their names.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    from busi_lab.report.figures.png import save_png  # matplotlib costs a second: only where something is drawn

    written = []
    for section in sections:
        for group in section.groups:
            if group.file:
                written.append(f"{group.file}.png")
                save_png(group, folder / written[-1])
        written += write_pictures(section.parts, folder)
    return written
