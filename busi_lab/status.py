"""``busi-sweep``: how far a sweep is, from its directories alone."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from busi_lab.errors import OneLineParser, exit_on_user_error
from busi_lab.plurals import counted
from busi_lab.sweep.progress import JobState, Progress, progress

SHOWN = 40
"""Jobs that are listed at most; all with ``--all``."""


def describe(found: Progress, shown: int | None = SHOWN) -> str:
    """The state of a sweep as text: running jobs first, then what needs a look, and counts in the last line."""
    order = ("running", "failed", "stopped", "pruned", "finished", "waiting")
    jobs = sorted(found.jobs, key=lambda job: order.index(job.state))
    listed = jobs[:shown]
    width = max((len(job.name) for job in listed), default=0)
    lines = [f"{job.state:<9} {job.name:<{width}}  {_details(job)}".rstrip() for job in listed]
    if len(jobs) > len(listed):
        lines.append(f"and {len(jobs) - len(listed)} more; --all lists them")
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    left = "" if found.left is None else f"; about {duration(found.left)} left"
    to_come = f"; {found.to_come} to be proposed" if found.to_come else ""
    return "\n".join([*lines, f"{counted(len(jobs), 'job')}: {counts}{to_come}{left}"])


def _details(job: JobState) -> str:
    if job.state == "failed":
        return job.reason or ""
    if job.objective is not None:
        return f"{job.objective[0]} {job.objective[1]:.4f}" + (f", {duration(job.total)}" if job.total else "")
    if job.epochs is None:
        return ""
    of = f" of {job.of}" if job.of else ""
    return f"epoch {job.epochs}{of}" + (f", {job.seconds:.1f} s an epoch" if job.seconds else "")


def duration(seconds: float) -> str:
    """A time as people say it, to about a hundredth: ``12 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def main(argv: Sequence[str] | None = None) -> None:
    """Console script ``busi-sweep``.

    Exit code 0; 2 for a wrong input; 130 after Ctrl-C.

    Args:
        argv: the command line without the program's name; None for the process's own.
    """
    parser = OneLineParser(prog="busi-sweep", description="What of a sweep is done, running, failed or waiting.")
    parser.add_argument("sweep", type=Path, metavar="DIR", help="directory of a sweep, as sweeps/NAME")
    parser.add_argument("--all", action="store_true", help=f"list all jobs, not the first {SHOWN}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--live", action="store_true", help="look again every few seconds until the sweep rests")
    arguments = parser.parse_args(argv)
    with exit_on_user_error():
        try:
            _show(arguments)
        except KeyboardInterrupt:  # the usual end of --live
            sys.exit(128 + signal.SIGINT)


def _show(arguments: argparse.Namespace) -> None:
    while True:
        found = progress(arguments.sweep)
        if arguments.json:
            content = {
                "jobs": [asdict(job) for job in found.jobs],
                "counts": found.counts,
                "to_come": found.to_come,
                "seconds_left": found.left,
            }
            print(json.dumps(content, allow_nan=False), flush=True)
        else:
            clear = "\x1b[2J\x1b[H" if arguments.live and sys.stdout.isatty() else ""
            print(clear + describe(found, None if arguments.all else SHOWN), flush=True)
        if not arguments.live or not found.goes_on:
            return
        time.sleep(2)


if __name__ == "__main__":
    main()
