"""What installed packages bring: entry points by their names, loaded when one is asked for."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from busi_lab.errors import UserError, one_line


def installed(group: str) -> list[str]:
    """The names of the entry points of a group, none of which is loaded."""
    return sorted({item.name for item in entry_points(group=group)})


def load_extension(group: str, name: str) -> Any | None:
    """What an entry point stands for, imported; None where no package has it.

    Raises:
        UserError: its package is broken.
    """
    found = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        return None
    try:
        return found.load()
    except Exception as error:  # whatever importing the module raises
        reason = f"{type(error).__name__}: {one_line(error)[:160]}"
        raise UserError(
            f"{name} of the package {_package(found)} (entry point {found.value} in {group}) cannot be loaded "
            f"({reason}); mend or remove that package"
        ) from None


def targets(group: str) -> set[str]:
    """The entry points of a group as ``_target_`` names them, such as ``package.module.Class``."""
    return {item.value.partition("[")[0].strip().replace(":", ".") for item in entry_points(group=group)}


def _package(item: EntryPoint) -> str:
    return item.dist.name if item.dist is not None else item.module.partition(".")[0]
