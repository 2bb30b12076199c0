"""Rows of repeats.csv and pairs.csv."""

from collections.abc import Mapping, Sequence
from typing import Any

from busi_lab.report.pairwise import Difference, outcome
from busi_lab.report.repeats import Experiment
from busi_lab.report.settings import in_words
from busi_lab.report.tables import TEST_METRICS, number, text
from busi_lab.report.uncertainty import RESAMPLES


def repeat_record(item: Experiment, keys: Sequence[str]) -> dict[str, Any]:
    """A row of repeats.csv; ``keys`` are the settings that not all experiments share."""
    summary, cases = item.rows[0].run.summary, item.cases
    record: dict[str, Any] = {
        "experiment": text(item.rows[0].run.name),
        "task": text(summary.task),
        "model": text(summary.model),
        "weights": text(summary.weights),
        "data": text(item.table.dataset),
        "data_digest": text(item.table.data_digest),
        "protocol": item.protocol,
        "runs": len(item.rows),
        "seeds": len(item.repeats),
        "folds": item.folds,
        "expected_folds": item.expected_folds,
        "test_digest": item.table.test_digest if item.folds is None else None,
        "images": None if cases is None else len(cases),
        "groups": cases.groups if cases is not None and cases.grouped else None,
        "leaked": item.leaked,
        "resamples": RESAMPLES if item.estimates else None,
    }
    if item.settings is not None:
        record["settings"] = in_words(item.settings, keys)
    for name in TEST_METRICS:
        found, mean = item.estimates.get(name), None if item.estimates else item.recorded.get(name)
        if found:
            record |= {
                f"{name}/mean": found.value,
                f"{name}/low95": number(found.low),
                f"{name}/high95": number(found.high),
            }
            record |= {f"{name}/groups": found.groups, f"{name}/runs": found.runs}
        elif mean is not None:
            record[f"{name}/mean"] = mean
        if spread := item.spread.get(name):
            record |= {f"{name}/sd_{kind}": getattr(spread, kind) for kind in ("folds", "seeds", "splits")}
        if name in item.ensemble:
            record[f"{name}/ensemble"] = item.ensemble[name]
    return record


def pair_record(test: Difference) -> dict[str, Any]:
    """A row of pairs.csv; without p where too few groups were tested."""
    return {
        "first": test.first.label,
        "second": test.second.label,
        "data": text(test.first.table.dataset),
        "protocol": test.first.protocol,
        "second_protocol": test.second.protocol,
        "images": test.images,
        "groups": test.difference.groups,
        "measure": test.measure,
        "test": test.test,
        "first_value": test.values[0],
        "second_value": test.values[1],
        "difference": test.difference.value,
        "low": number(test.difference.low),
        "high": number(test.difference.high),
        "p": None if test.difference.few else test.p,
        "p_holm": None if test.difference.few else test.corrected,
        "verdict": outcome(test),
    }


def columns_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """All keys of ``records`` in the order of their first appearance, those of metrics together."""
    held = {key for record in records for key in record}
    plain = dict.fromkeys(key for record in records for key in record if "/" not in key)
    kinds = ("mean", "low95", "high95", "groups", "runs", "sd_folds", "sd_seeds", "sd_splits", "ensemble")
    return [*plain, *(key for name in TEST_METRICS for kind in kinds if (key := f"{name}/{kind}") in held)]
