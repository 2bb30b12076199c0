"""A run directory -> its model card, as Markdown that model hubs show."""

from pathlib import Path

from busi_lab.errors import UserError
from busi_lab.report.results.analysis import analyse
from busi_lab.report.results.reading import build
from busi_lab.report.sections.card import card
from busi_lab.report.writers.markdown import render_markdown
from busi_lab.summary import SUMMARY, read_summary

_HEAD = """---
library_name: busi-lab
pipeline_tag: image-classification
tags:
- breast-ultrasound
- research-only
---
"""
"""What model hubs read."""


def make_card(run: Path, address: str | None = None) -> str:
    """The card of a finished run, or of an ensemble; with an ``address`` it names nothing of this machine.

    Raises:
        UserError: there is none, or it is an evaluation.
    """
    if not (run / SUMMARY).is_file():
        raise UserError(f"{run}: no run directory, {SUMMARY} is missing; give a finished run")
    summary = read_summary(run)
    if summary.source is not None:
        raise UserError(
            f"{run} holds the evaluation of a run; give the directory of that run, {summary.source.directory}"
        )
    if summary.status != "finished":
        raise UserError(f"{run}: the run failed ({summary.error}); give a finished one")
    return _HEAD + render_markdown(card(analyse(build([run])), address), title=str(summary.experiment))
