"""Clinical figures of experiments over several folds."""

from busi_lab.report.results.analysis import Analysis
from busi_lab.report.sections.clinical import clinical_parts
from busi_lab.report.sections.scopes import where
from busi_lab.report.sections.section import Section


def folds(analysis: Analysis) -> list[Section]:
    """A section for each task and scope with folds."""
    found = []
    for pooled in analysis.pooled:
        whole = sum(item.table.task == pooled.task and (item.folds or 0) > 1 for item in pooled.scope.experiments)
        if parts := clinical_parts(pooled.clinical, "experiment", whole, pooled=True):
            found.append(Section(f"Folds together: {pooled.task} on {where(pooled.scope)}", parts=parts))
    return found
