"""Clinical figures of experiments over several folds, and examples from one of them."""

from dataclasses import replace

from busi_lab.report.results.analysis import Analysis, Pooled
from busi_lab.report.sections.clinical import clinical_parts
from busi_lab.report.sections.examples import examples
from busi_lab.report.sections.scopes import where
from busi_lab.report.sections.section import Section


def folds(analysis: Analysis) -> list[Section]:
    """A section for each task and scope with folds."""
    found = []
    for pooled in analysis.pooled:
        whole = sum(item.table.task == pooled.task and (item.folds or 0) > 1 for item in pooled.scope.experiments)
        parts = (*clinical_parts(pooled.clinical, "experiment", whole, pooled=True), _of_one_fold(analysis, pooled))
        found.append(Section(f"Folds together: {pooled.task} on {where(pooled.scope)}", parts=parts))
    return found


def _of_one_fold(analysis: Analysis, pooled: Pooled) -> Section:
    """Examples of the best run of one fold, because each fold has networks of its own."""
    best = next(i for i in pooled.scope.experiments if i.table.task == pooled.task and (i.folds or 0) > 1)
    found = examples(analysis, best.table)
    return replace(
        found, sentences=(f"These are test images of one fold, Table {best.table.number}.", *found.sentences)
    )
