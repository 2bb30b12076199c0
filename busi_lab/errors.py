"""What a user sees when an input is wrong: one line and exit code 2."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class UserError(Exception):
    """An input that the user can put right.

    The message is one line: what is wrong and where, what was expected, what was found, what to do.
    """


class OneLineParser(argparse.ArgumentParser):
    """A parser of the command line whose complaint is a :class:`UserError`."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UserError(f"{message}; see {self.prog} --help")


def one_line(error: BaseException) -> str:
    """The message of ``error``, or of what caused it, on one line; its type where there is no message."""
    message = " ".join(str(error).split())
    if not message and error.__cause__ is not None:
        return one_line(error.__cause__)
    return message or type(error).__name__


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a :class:`UserError` into its one line on stderr and exit code 2; bugs keep their traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
