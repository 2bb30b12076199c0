"""What the findings rest on: images, protocol, leaks, and what else a reader must know; and what figures are called."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.published import CAVEATS
from busi_lab.report.results.reading import objective_of
from busi_lab.report.results.tables import Table
from busi_lab.report.sections.section import Section
from busi_lab.run_directory import PREDICTIONS

_TERMS = {
    "auroc": "AUROC: the area under the ROC curve, the chance that a random image of the class has a higher score than "
    "a random one of the rest; 0.5 is guessing, 1 is perfect. auroc is the mean over the classes.",
    "f1": "F1: the harmonic mean of precision (how many of those called a class are of it) and recall (how many of a "
    "class are called so), as the mean over the classes; f1_present leaves classes without an image out.",
    "dice": "Dice: twice the common area of two masks over the sum of both, from 0 (no overlap) to 1 (equal); dice is "
    "the mean over the images with a lesion, dice_pooled takes all pixels together.",
    "iou": "IoU: the common area of two masks over their joint area.",
    "hd95": "HD95: the distance that 95 % of the points of either outline keep from the other, in pixels or in "
    "millimetres; less is better.",
    "false_positive_rate": "false_positive_rate: the share of images without a lesion in which one is marked.",
    "dice_refined": "dice_refined and its like: the figure after class and mask were made consistent; a scan that is "
    "called without a lesion has an empty mask, and one with an empty mask is called so.",
}


def basis(analysis: Analysis) -> list[Section]:
    """One section, with the terms in a part of their own."""
    alone = [table for table in analysis.tables if table.number not in analysis.fold_tables]
    several = len(analysis.tables) > 1
    sentences = [f"{_place(table) if several else ''}{images(table)}" for table in alone]
    sentences += _of_folds(analysis)
    if folds := len(analysis.fold_tables):
        sentences.append(f"{folds} tables are of single folds; what their runs say together stands before them.")
    failed, finished = len(analysis.failures), sum(len(table.rows) for table in analysis.tables)
    sentences.append(
        f"{failed} of {words.counted(finished + failed, 'run')} {'has' if failed == 1 else 'have'} no result; the "
        "reasons stand below."
        if failed
        else "No run failed."
    )
    if pruned := analysis.comparison.pruned:
        sentences.append(
            f"{words.counted(pruned, 'further run')} {'was' if pruned == 1 else 'were'} pruned by a search."
        )
    parts = (Section("What the figures are called", tuple(_terms(analysis))),)
    return [Section("What this rests on", tuple(sentences), tuple(_notes(analysis.tables)), parts=parts, terminal=True)]


def _place(table: Table) -> str:
    return f"Table {table.number}: "


def images(table: Table) -> str:
    """The runs and their images."""
    data = table.rows[0].run.summary.data
    learnt = () if table.evaluated else ((data.train, "training"), (data.val, "validation"))
    sizes = [f"{count} {what}" for count, what in learnt if count]
    test = f"{table.test_images if table.test_images is not None else 'an unknown number of'} test images"
    runs = "One run" if len(table.rows) == 1 else f"{len(table.rows)} runs"
    return (
        f"{runs} for {table.task} on {table.dataset} under the {table.protocol}: {', '.join([*sizes, test])}. "
        f"Leaked test images: {leaked(table)}."
    )


def leaked(table: Table) -> str:
    """How many test images have a near-copy or the same patient in training or validation."""
    return words.leaks(table.leaked, table.test_images) if table.leaked else uncounted(table)


def uncounted(of: Table | Experiment) -> str:
    """Why leaks are not known."""
    return "not counted, because near-copies were not looked for" if of.unsearched else "not recorded"


def _of_folds(analysis: Analysis) -> list[str]:
    found = []
    for item in analysis.experiments:
        if (item.folds or 0) > 1:
            cases = "an unknown number of" if item.cases is None else len(item.cases)
            leaks = uncounted(item) if item.leaked is None else words.leaks(*item.leaked)
            found.append(
                f"{item.label} for {item.table.task} on {item.table.dataset} under the {item.protocol} protocol: "
                f"{words.counted(len(item.rows), 'run')} over {item.folds} of {item.expected_folds} folds, {cases} "
                f"test images together. Leaked test images: {leaks}."
            )
    return found


def _notes(tables: Sequence[Table]) -> list[str]:
    """The tables' notes, each once, with the tables that it is about where there are several."""
    found: dict[str, list[int]] = {}
    for table in tables:
        for note in notes(table):
            found.setdefault(note, []).append(table.number)
    if len(tables) == 1:
        return list(found)
    place = {note: "Table" if len(numbers) == 1 else "Tables" for note, numbers in found.items()}
    return [f"{place[note]} {', '.join(map(str, numbers))}: {note}" for note, numbers in found.items()]


def notes(table: Table) -> list[str]:
    """What a reader must know before believing the ranking or the figures beside each other."""
    summaries = [row.run.summary for row in table.rows]
    protocols = sorted({str(summary.split.protocol) for summary in summaries})
    unmeasured = {str(s.split.protocol) for s in summaries if words.number(s.split.leaked) is None}
    caveats = CAVEATS if table.of_the_paper else {}
    found = []
    if any(count > 0 for count in table.leaked):
        found.append(
            f"Of the test images {words.leaks(table.leaked, table.test_images)} have a near-copy or the same "
            "patient in training or validation: figures on them may be too good to be believed as they stand."
        )
    if table.unsearched:
        found.append(
            "Near-copies were not looked for (split.groups=none): training and test images may show the same lesion, "
            "and intervals may be too narrow."
        )
    found += [
        f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(t for s in summaries for t in s.split.imbalance)
    ]
    found += [caveats[name] for name in protocols if name in unmeasured & caveats.keys()]
    if any(row.published for row in table.rows) and protocols != ["published"]:
        found.append("The paper's figures come from its own test set, not from this one.")
    if damaged := [row.label for row in table.rows if row.damaged]:
        found.append(f"{PREDICTIONS} is damaged, so nothing is made of it: {words.some(damaged)}.")
    if table.test_digest is None:
        found.append("The runs do not say which images they were tested on: they may differ.")
    if len({words.text(summary.split.digest) for summary in summaries}) > 1:
        found.append("Training or validation images differ between these runs, so the ranking is rough.")
    if len({objective_of(summary) for summary in summaries}) > 1:
        found.append(f"The runs chose their best epochs by different objectives; {table.metric} ranks them.")
    return found


def _terms(analysis: Analysis) -> list[str]:
    """What abbreviations mean, of the metrics that any run has."""
    held = {
        name.removeprefix("test/")
        for table in analysis.tables
        for row in table.rows
        for name in row.run.summary.metrics
    }
    held |= {name for item in analysis.experiments for name in item.estimates}
    return [told for term, told in _TERMS.items() if any(name.startswith(term) for name in held)]
