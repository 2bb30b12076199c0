"""What the Hydra programs share: one call of one, errors as one line, and the command line as a record."""

import argparse
import errno
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir, version
from hydra._internal.utils import _run_hydra, get_args_parser  # hydra.main takes no arguments but those of sys.argv
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from busi_lab.config import config_dir
from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, quoted
from busi_lab.typos import explain


class Application:
    """One call of a Hydra program. Hydra calls it with the configuration of each job.

    Args:
        job: carries out a job; its value is the sweep's objective.
        note_failure: called with the directory, the configuration and the error of a job that failed.

    Attributes:
        entered: directories of the jobs that were begun in this process.
        rejected: what users can put right; Hydra would print a second line for an error that leaves a job.
        sweep: what a launcher has started, if one has.
    """

    def __init__(
        self,
        job: Callable[[DictConfig], float],
        note_failure: Callable[[Path, DictConfig, Exception], None] = lambda directory, config, error: None,
    ) -> None:
        self._job = job
        self._note_failure = note_failure
        self.entered: list[Path] = []
        self.rejected: list[UserError] = []
        self.sweep: Any = None

    def __call__(self, config: DictConfig) -> float:
        """Carry out one job; NaN where it was rejected."""
        directory = Path(str(config.run_dir))
        self.entered.append(directory)
        try:
            return self._job(config)
        except (UserError, HydraException, OmegaConfBaseException) as error:
            rejection = error if isinstance(error, UserError) else UserError(first_sentence(error))
            self._note_failure(directory, config, rejection)
        except OSError as error:
            self._note_failure(directory, config, error)
            if not is_full_disk(error):
                raise
            rejection = UserError(
                f"no space left for {error.filename or directory}; free some, then {_next(directory)}"
            )
        except Exception as error:
            self._note_failure(directory, config, error)
            raise
        _remove_traces(directory, f"{HydraConfig.get().job.name}.log")
        self.rejected.append(rejection)
        return float("nan")

    def run(
        self, config_name: str, schema: type, argv: Sequence[str] | None, flags: Sequence[str] = ()
    ) -> argparse.Namespace:
        """Let Hydra parse a command line, compose the configuration, and call this for each job.

        Args:
            config_name: of the primary configuration.
            schema: its keys, as a dataclass.
            argv: the command line without the program's name; None for the process's own.
            flags: options of the program's own, without a value.

        Raises:
            UserError: what users can put right before a job is begun.
        """
        os.environ["HYDRA_FULL_ERROR"] = "1"
        parser = get_args_parser()
        for flag in flags:
            parser.add_argument(flag, action="store_true")
        given = understood(sys.argv[1:] if argv is None else argv, parser)
        parser.error = _refuse  # type: ignore[method-assign]
        arguments = parser.parse_intermixed_args(given)  # options may stand between overrides
        if arguments.experimental_rerun is not None:
            raise UserError("--experimental-rerun: not supported; summary.json has the command that gives a run again")
        if arguments.cfg and arguments.multirun:
            raise UserError("--cfg shows the configuration of one job; leave out -m, and give one value to each key")
        others = arguments.run or arguments.cfg or arguments.info or arguments.shell_completion
        if not others and _is_multirun(arguments.overrides):
            arguments.multirun = True
        version.setbase("1.3")
        folders = [config_dir(), *([Path(arguments.config_dir)] if arguments.config_dir else [])]
        chosen = partial(_chosen_groups, config_name, list(arguments.overrides), folders[1:])
        explained = partial(explain, schema=schema, folders=folders, compose=chosen)
        with hydra_errors(lambda: bool(self.entered) or self.sweep is not None, explained):
            _run_hydra(arguments, parser, self, str(config_dir()), config_name)
        return arguments


def _is_multirun(overrides: Sequence[str]) -> bool:
    """Whether overrides choose a multirun by name.

    Hydra finds that in the configuration, and takes it for a single run where a typo keeps it from composing one.
    """
    chosen = {item.split("=")[0] for item in overrides}
    return bool(chosen & {"sweep", "search"}) and "hydra.mode" not in chosen


def _refuse(message: str) -> NoReturn:
    """Say in one line what argparse does not understand."""
    unknown = re.match(rf"unrecognized arguments: (--({_KEY}))(?: |$)", message)
    if unknown is None:
        raise UserError(f"{message}; --help lists the options")
    option, key = unknown.groups()
    raise UserError(f"{option}: no such option; for a key of the configuration give a value, as in {key}=VALUE")


def _chosen_groups(config_name: str, overrides: Sequence[str], folders: Sequence[Path]) -> Mapping[str, Any]:
    """The configuration that the choices of groups alone give; empty where they give none."""
    choices = [item for item in overrides if re.match(r"[+~]{0,2}\w+=[\w/.-]+$", item)]
    paths = ",".join(f"'file://{path.absolute()}'" for path in folders)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return compose(config_name, [*choices, *([f"hydra.searchpath=[{paths}]"] if paths else [])])
    except (HydraException, OmegaConfBaseException, ValueError):
        return {}


_KEY = r"[+~]{0,2}[A-Za-z_][\w./@-]*"


def understood(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """A command line as Hydra takes it, also where an agent of W&B's sweeps has written it.

    ``--KEY=VALUE`` and ``--KEY VALUE`` become ``KEY=VALUE``, unless ``--KEY`` is an option of ``parser`` or the
    beginning of one; the value ``None`` becomes ``null``.
    """
    options = {name: action for action in parser._actions for name in action.option_strings}
    options.pop("--experimental-rerun", None)  # which we refuse, and of which our --experiment is the beginning
    taken, rest = list[str](), list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*taken, word, *rest]
        name, equals, _ = word.partition("=")
        known = [action for option, action in options.items() if option.startswith(name)]
        if name == "--experimental-rerun":
            known = [parser._option_string_actions[name]]
        if word.startswith("-") and known and (not equals or any(action.nargs != 0 for action in known)):
            taken.append(word)
            if not equals and known[0].nargs is None and rest:
                taken.append(rest.pop(0))  # the option's value
            continue
        if name.startswith("--") and re.fullmatch(_KEY, name[2:]):
            if equals:
                word = word[2:]
            elif rest and not re.match(rf"--|-[A-Za-z]|{_KEY}=", rest[0]):
                word = f"{name[2:]}={rest.pop(0)}"
        taken.append(re.sub(rf"^({_KEY}=)None$", r"\1null", word))
    return taken


def _remove_traces(directory: Path, log_name: str) -> None:
    """Remove what Hydra wrote, its log too, for a job that was refused before it wrote anything of its own."""
    try:
        content = list(directory.iterdir())
        if all(path.name in (".hydra", log_name) for path in content):
            for path in content:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            directory.rmdir()
    except OSError:  # nothing to remove, or not ours to remove
        return


def _next(directory: Path) -> str:
    """What can be done with a run that has ended before its end."""
    if any((directory / name).exists() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)):
        return f"continue with resume={quoted(directory)}"
    return "start again in a new directory"


@contextmanager
def hydra_errors(
    entered: Callable[[], bool], explained: Callable[[Exception], str | None] = lambda error: None
) -> Iterator[None]:
    """Turn what a user can put right in Hydra's and the file system's errors into a :class:`UserError`.

    Args:
        entered: whether a job was entered; before, Hydra makes its directory.
        explained: better words than Hydra's for some of its errors.
    """
    try:
        yield
    except OverrideParseException as error:
        raise UserError(advice(error.override, error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise _own_words(error) or UserError(explained(error) or first_sentence(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        if is_full_disk(error):
            raise UserError(f"no space left for {error.filename or 'the run directory'}; free some") from None
        if entered():
            raise
        raise UserError(
            f"{error.filename or 'the run directory'}: cannot be written ({error.strerror}); set hydra.run.dir or "
            "hydra.sweep.dir to a writable folder"
        ) from None


def _own_words(error: BaseException) -> UserError | None:
    """What a resolver of ours has refused, which OmegaConf wraps twice."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, UserError):
        inner = inner.__context__
    return inner


def is_full_disk(error: OSError) -> bool:
    """Whether the disk, or this user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def advice(override: str, error: Exception) -> str:
    """An override that Hydra cannot parse, with how to quote it."""
    return (
        f"{override}: {first_sentence(error)}; a value with brackets, commas, spaces, ~ or letters beyond a to z "
        "needs two pairs of quotes, as in \"KEY='benign (1)'\""
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
