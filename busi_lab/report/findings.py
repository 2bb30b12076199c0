"""What came out of a comparison, in sentences."""

from busi_lab.report.cases import read_test_cases
from busi_lab.report.estimates import estimate
from busi_lab.report.published import PAPER_DATASET
from busi_lab.report.render import figure
from busi_lab.report.tables import Row, Table
from busi_lab.run_directory import CLASSES
from busi_lab.summary import DataRecord

_PAPER_METRICS = {
    "classification": {"accuracy": "accuracy"},
    "segmentation": {"dice": "Dice", "pixel_accuracy": "pixel accuracy"},
}


def findings(table: Table) -> list[str]:
    """The runs and their images, the best run by validation, its test result, and the paper's figures."""
    best = table.rows[0]
    data = best.run.summary.data
    runs = "One run" if len(table.rows) == 1 else f"{len(table.rows)} runs"
    own = DataRecord() if best.run.summary.source else data  # an evaluation has learnt from none of these images
    sizes = [f"{count} {word}" for count, word in ((own.train, "training"), (own.val, "validation")) if count]
    images = f"{table.test_images if table.test_images is not None else 'an unknown number of'} test images"
    sentences = [
        f"{runs} for {table.task} on {table.dataset} under the {table.protocol}: {', '.join([*sizes, images])}."
    ]
    if best.objective is None:
        return [*sentences, f"No run recorded {table.metric}, so there is no best one."]
    others = [row.label for row in table.level[1:]]
    level = f", level with {' and '.join(others)} and first by name alone" if others else ""
    where = " on its own validation images" if best.run.summary.source else " on validation"
    chosen = (
        f"{best.label} has {table.metric} {best.objective:.3f}{where}"
        if len(table.rows) == 1
        else f"Best by validation is {best.label} ({table.metric} {best.objective:.3f}){level}"
    )
    sentences.append(f"{chosen}. {_test_result(best)}")
    return [*sentences, *(_beside_the_paper(table) if table.dataset == PAPER_DATASET else ())]


def _beside_the_paper(table: Table) -> list[str]:
    """A sentence for each figure that the paper has for these experiments."""
    known = _PAPER_METRICS.get(table.task)
    metrics = known or {name: words for task in _PAPER_METRICS.values() for name, words in task.items()}
    sentences = []
    for name, words in metrics.items():
        seen: dict[str, str] = {}
        for row in table.rows:
            ours, paper = row.metric(f"test/{name}"), row.published.get(name)
            if ours is not None and paper is not None:
                seen.setdefault(row.run.name, f"{row.run.name} {ours:.3f} (paper {figure(paper)})")
        if seen:
            best = "; ".join(seen.values())
            sentences.append(f"Test {words} beside the paper's, best run of each experiment: {best}.")
    return sentences or ["The paper has no figure for these experiments."]


def _test_result(row: Row) -> str:
    """The test figures of a run, in a sentence for its classes and one for its masks."""
    parts, matrix = [], row.confusion()
    if matrix:
        right, total = int(sum(matrix[i][i] for i in range(len(CLASSES)))), int(sum(map(sum, matrix)))
        parts.append(f"{right} of {total} images right{_interval(row)}")
    parts += _figures(row, _CLASS_FIGURES)
    masks = _figures(row, _MASK_FIGURES)
    if not parts and not masks:
        return "It recorded no test figure."
    sentences = [f"On the test images it has {', '.join(parts or masks)}."]
    if parts and masks:
        sentences.append(f"Its masks have {', '.join(masks)}.")
    return " ".join(sentences)


def _interval(row: Row) -> str:
    """The interval of the accuracy in brackets; empty where no predictions can be read."""
    cases = read_test_cases(row.run)
    if cases is None or cases.probabilities is None:
        return ""
    found = estimate([cases], lambda part, weights: {"accuracy": part.figures_of("accuracy", weights)})["accuracy"]
    if found.groups < 2:
        return ""
    few = f", of {found.groups} groups, too few to be trusted" if found.few else ""
    return f" (95 % interval {found.low:.1%} to {found.high:.1%}{few})"


_CLASS_FIGURES = {
    "accuracy": "accuracy {:.3f}",
    "f1": "macro F1 {:.3f}",
    "f1_present": "F1 {:.3f} as the mean over the classes that have images",
}
_MASK_FIGURES = {
    "dice": "mean Dice {:.3f} over the images with a lesion",
    "dice_pooled": "Dice {:.3f} over all pixels together",
    "pixel_accuracy": "pixel accuracy {:.3f}",
    "missed_lesions": "no lesion found in {:.1%} of the images with one",
    "false_positive_rate": "a lesion found in {:.1%} of the normal ones",
}


def _figures(row: Row, formats: dict[str, str]) -> list[str]:
    known = ((words, row.metric(f"test/{name}")) for name, words in formats.items())
    return [words.format(value) for words, value in known if value is not None]
