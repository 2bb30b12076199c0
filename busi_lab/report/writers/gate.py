"""What a baseline says of a comparison, in lines."""

from busi_lab.report import words
from busi_lab.report.results.gate import Key, Verdict


def lines_of(verdict: Verdict, tolerance: float) -> list[str]:
    """A line for each figure that is worse and each experiment that cannot be compared; else one that says so."""
    found = [
        f"worse than the baseline: {_name(each.key)}: {each.figure} {words.figure(each.before)} before, "
        f"{words.figure(each.now)} now, {words.signed(each.now - each.before)}"
        for each in verdict.worse
    ]
    found += [
        f"missing now: {_name(key)} has not all the test figures here that it has in the baseline"
        for key in verdict.missing
    ]
    found += [
        f"another test set: {_name(key)} was tested on other images than in the baseline, so nothing is compared"
        for key in verdict.elsewhere
    ]
    how = f"{words.counted(verdict.compared, 'figure')} compared, tolerance {tolerance:g}"
    return found or [f"no figure is worse than the baseline ({how})"]


def exit_code(verdict: Verdict) -> int:
    """2 where test sets differ, so that nothing can be said; 1 where something is worse or missing; else 0."""
    if verdict.elsewhere:
        return 2
    return 1 if verdict.worse or verdict.missing else 0


def _name(key: Key) -> str:
    return f"{key.experiment} ({key.task}, {key.protocol}, data {key.data_digest[:12] or 'unknown'})"
