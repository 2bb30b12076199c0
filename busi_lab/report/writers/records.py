"""Rows of the CSV files of a report: numbers as they are, unrounded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from busi_lab.report.results.abstention import abstain, judge_sets
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.conformal import COVERAGES
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.metrics import REFINED_METRICS, test_metrics
from busi_lab.report.results.pairwise import Difference
from busi_lab.report.results.settings import in_words
from busi_lab.report.results.subjects import Subject
from busi_lab.report.results.systems import System, systems
from busi_lab.report.results.uncertainty import RESAMPLES
from busi_lab.report.sections.scopes import leaked_words
from busi_lab.report.sections.systems import estimate_of
from busi_lab.report.sections.tests import outcome
from busi_lab.report.words import number, text
from busi_lab.summary import Summary


def records(analysis: Analysis) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of ``table.csv``: every run with all its scalars, unrounded; failures last."""
    found: list[dict[str, Any]] = []
    for table in analysis.tables:
        place = {"table": table.number, "objective": table.metric, "objective_mode": table.mode}
        for row in table.rows:
            paper = {f"paper/{name}": value for name, value in row.published.items()}
            rank = {"rank": row.rank, "objective_value": row.objective}
            found.append({"run": row.folder, **place, **rank, **_record(row.run.summary), **paper})
    for failure in analysis.failures:
        known = _record(failure.run.summary) if failure.run else {}
        found.append({"run": failure.folder, **known, "status": failure.status, "error": failure.reason})
    held = {key for record in found for key in record}
    test = [f"test/{name}" for name in analysis.metrics]
    test += sorted(key for key in held if key.startswith("test/") and key not in test)
    paper_columns = [f"paper/{name}" for name in analysis.metrics]
    columns = [*_FIRST, *test, *paper_columns, *sorted(key for key in held if key.startswith("val/")), *_LAST]
    return [column for column in columns if column in held], found


_FIRST = (
    *("run", "status", "table", "rank", "objective", "objective_mode", "objective_value"),
    *(
        "task",
        "experiment",
        "model",
        "weights",
        "seed",
        "data",
        "data_digest",
        "protocol",
        "split_seed",
        "fold",
    ),
    *("split_digest", "test_digest", "train_images", "val_images", "test_images", "leaked_test_images"),
)
_LAST = (
    *("parameters", "epochs", "best_epoch", "images_per_second", "fit_seconds", "test_seconds"),
    *("total_seconds", "inference_milliseconds", "device", "precision", "git", "error"),
)
_SAME = (
    *("status", "task", "experiment", "model", "weights", "seed", "parameters", "epochs", "best_epoch"),
    *("images_per_second", "inference_milliseconds", "device", "precision", "git", "error"),
)


def _record(summary: Summary) -> dict[str, Any]:
    split, data = summary.split, summary.data
    record = {name: getattr(summary, name) for name in _SAME}
    record |= {"protocol": split.protocol, "split_seed": split.seed, "fold": split.fold}
    record |= {"leaked_test_images": number(split.leaked)}
    record |= {"split_digest": split.digest, "test_digest": split.test_digest}
    record |= {"data": data.name, "data_digest": data.digest}
    learnt = summary.source or data  # an evaluation tests on data that the run has not learnt from
    record |= {f"{part}_images": getattr(learnt, part) for part in ("train", "val")} | {"test_images": data.test}
    record |= {f"{part}_seconds": summary.seconds.get(part) for part in ("fit", "test", "total")}
    record = {key: text(value) if isinstance(value, str) else value for key, value in record.items()}
    scalars = {name: number(value) for name, value in summary.metrics.items() if not isinstance(value, list)}
    return record | {name: value for name, value in scalars.items() if name.startswith(("test/", "val/"))}


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
        "leaked": leaked_words(item),
        "resamples": RESAMPLES if item.estimates else None,
    }
    if item.settings is not None:
        record["settings"] = in_words(item.settings, keys)
    for name in test_metrics([item.classes]):
        plain = not item.estimates or name in REFINED_METRICS
        found, mean = item.estimates.get(name), item.recorded.get(name) if plain else None
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


def system_records(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of published.csv: each published system with each of its protocols here, a curated one perhaps as both."""
    return [
        _system_record(system, kind, item)
        for system in systems(analysis.experiments)
        for kind, items in (
            *(("like theirs", system.theirs), ("leak-free", system.leak_free)),
            ("invalid protocol", system.invalid),
        )
        for item in items
    ]


def _system_record(system: System, kind: str, item: Experiment) -> dict[str, Any]:
    result, name = system.result, system.result.main
    low, high = result.ranges.get(name, (None, None))
    estimate, value = estimate_of(item, name)
    return {
        "experiment": system.name,
        "figure": name,
        "published": result.metrics.get(name),
        "published_sd": result.spread.get(name),
        "published_lowest": low,
        "published_highest": high,
        "published_test_set": result.test_set,
        "source": result.source,
        "inferred": result.inferred,
        "ours": system.kind,
        "lacks": "; ".join(system.lacks),
        "kind": kind,
        "protocol": item.protocol,
        "value": value,
        "low95": number(estimate.low) if estimate else None,
        "high95": number(estimate.high) if estimate else None,
        "images": None if item.cases is None else len(item.cases),
        "leaked": leaked_words(item),
        "weights": system.weights,
        "pixels": system.pixels,
        "epochs": system.epochs,
        "folds": item.folds,
        "expected_folds": item.expected_folds,
        "seeds": len(item.repeats),
    }


def repeat_records(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of repeats.csv, one for each experiment."""
    return [repeat_record(item, analysis.keys) for item in analysis.experiments]


def pair_records(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of pairs.csv: the tests between models, then those between protocols."""
    models = [test for scope in analysis.scopes for test in scope.tests]
    return [pair_record(test) for test in [*models, *(test for _, tests in analysis.protocols for test in tests)]]


def set_records(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of prediction_sets.csv: one for each run, or experiment over folds, and coverage that is asked for."""
    found = []
    for place, subject in _judged(analysis):
        for coverage in COVERAGES:
            if (sets := judge_sets(subject, coverage)) is None:
                continue
            record = {**place, "stated": coverage, "images": sets.images, "coverage": sets.coverage.value}
            record |= {"low95": number(sets.coverage.low), "high95": number(sets.coverage.high)}
            record |= {"mean_size": sets.size, "single": sets.single, "empty": sets.empty}
            record |= {"always": " ".join(sets.always)}
            for name, each in sets.by_class.items():
                record |= {f"coverage_{name}": each.value}
                record |= {f"low95_{name}": number(each.low), f"high95_{name}": number(each.high)}
            found.append(record)
    return found


def abstention_records(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of abstention.csv: one for each run, or experiment over folds, and number of images that are kept."""
    return [
        {**place, "kept": share, "images": round(share * curve.images), "accuracy": accuracy}
        for place, subject in _judged(analysis)
        if (curve := abstain(subject)) is not None
        for share, accuracy in zip(curve.shares.tolist(), curve.accuracies.tolist(), strict=True)
    ]


def _judged(analysis: Analysis) -> Iterator[tuple[dict[str, Any], Subject]]:
    """What the report judges clinically, and where that stands."""
    for table in analysis.tables:
        if table.number in analysis.clinical:
            place = {"table": table.number, "data": text(table.dataset), "protocol": table.protocol}
            for subject in analysis.clinical[table.number].subjects:
                yield {**place, "run": subject.label}, subject
    for pooled in analysis.pooled:
        place = {"table": None, "data": text(pooled.scope.dataset), "protocol": pooled.scope.protocol}
        for subject in pooled.clinical.subjects:
            yield {**place, "run": subject.label}, subject


def columns_of(records: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """All keys of ``records`` in the order of their first appearance, those of ``metrics`` together."""
    held = {key for record in records for key in record}
    plain = dict.fromkeys(key for record in records for key in record if "/" not in key)
    kinds = ("mean", "low95", "high95", "groups", "runs", "sd_folds", "sd_seeds", "sd_splits", "ensemble")
    return [*plain, *(key for name in metrics for kind in kinds if (key := f"{name}/{kind}") in held)]
