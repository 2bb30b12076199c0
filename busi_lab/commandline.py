"""What the Hydra applications share: errors as one line, and the command line as a record."""

import errno
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from busi_lab.errors import UserError, one_line


@contextmanager
def hydra_errors(entered: Callable[[], bool]) -> Iterator[None]:
    """Turn what a user can put right in Hydra's and the file system's errors into a :class:`UserError`.

    Args:
        entered: whether a job was entered; before, Hydra makes its directory.
    """
    try:
        yield
    except OverrideParseException as error:
        raise UserError(advice(error.override, error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(first_sentence(error)) from None
    except OSError as error:
        if is_full_disk(error):
            raise UserError(f"no space left for {error.filename or 'the run directory'}; free some") from None
        if entered():
            raise
        raise UserError(
            f"{error.filename}: cannot be written ({error.strerror}); set hydra.run.dir or hydra.sweep.dir "
            "to a writable folder"
        ) from None


def is_full_disk(error: OSError) -> bool:
    """Whether the disk, or this user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def advice(override: str, error: Exception) -> str:
    """An override that Hydra cannot parse, with how to quote it."""
    return (
        f"{override}: {first_sentence(error)}; a value with brackets, commas, spaces or ~ needs two pairs of quotes, "
        "as in \"KEY='benign (1)'\""
    )


def first_sentence(error: Exception) -> str:
    """Hydra's message without its lists and links."""
    return one_line(error).split(" See https")[0].split(" Config search path:")[0]


def command_line(program: str, hydra_config: Any) -> str:
    """The command line that gives this job alone, without where to write it."""
    folders = [item.path for item in hydra_config.runtime.config_sources if item.provider == "command-line"]
    flags = [part for folder in folders for part in ("--config-dir", folder)]
    overrides = list(hydra_config.overrides.task)
    alone = ["hydra.mode=RUN"] if any(item.startswith("sweep=") for item in overrides) else []
    return shlex.join([program, *flags, *overrides, *alone])


def overridden_keys(overrides: Sequence[str]) -> list[str]:
    """The keys and groups that overrides set."""
    return [item.lstrip("+~").split("=", 1)[0] for item in overrides]
