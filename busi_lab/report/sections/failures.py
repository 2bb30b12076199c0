"""Runs without a result, and why."""

from busi_lab.report.results.analysis import Analysis
from busi_lab.report.sections.section import Grid, Section, word


def failures(analysis: Analysis) -> list[Section]:
    """One section, or none."""
    lines = tuple(tuple(map(word, (item.folder, item.name, item.status, item.reason))) for item in analysis.failures)
    grid = Grid(("folder", "run", "status", "reason"), lines)
    return [Section("Runs without a result", grids=(grid,), terminal=True)] if lines else []
