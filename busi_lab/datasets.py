"""``busi-data``: the commands of ``data/cli.py`` on datasets, and the model card of a run."""

import sys
from collections.abc import Sequence
from pathlib import Path

from busi_lab.data.arguments import parse_arguments
from busi_lab.data.cli import carry_out
from busi_lab.errors import UserError, exit_on_user_error, one_line
from busi_lab.files import write_atomically


def write_card(run: Path, out: Path | None) -> None:
    """Write the card of a finished run as Markdown to a new file, or to stdout.

    Args:
        run: its directory, or that of an ensemble.
        out: the file; None for stdout.

    Raises:
        UserError: as :func:`busi_lab.card.make_card`; or ``out`` is there already or cannot be written.
    """
    if out is not None and (out.exists() or out.is_symlink()):
        raise UserError(f"--out {out}: expected a new file; it is there already and is not overwritten; choose another")
    from busi_lab.card import make_card

    card = make_card(run)
    if out is None:
        print(card, end="" if card.endswith("\n") else "\n")
        return
    try:
        write_atomically(out, card)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({one_line(error)}); choose another place") from None
    print(f"{out} is the card of {run}")


def main(argv: Sequence[str] | None = None) -> None:
    """The console script: exit code 0; 1 for a bug; 2 for a wrong input or a defect that ``check`` has found."""
    with exit_on_user_error():
        given = parse_arguments(argv)
        if given.command == "card":
            write_card(given.run, given.out)
        else:
            carry_out(given)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
