"""Names of the metrics that reports show, in their order; ``table.csv`` has every scalar of a run."""

from collections.abc import Iterable

from busi_lab.classes import Classes

MASK_METRICS = (
    *("dice", "iou", "dice_pooled", "pixel_accuracy", "false_positive_rate"),
    *("hd95", "hd95_pixels", "hd95_mm"),
)
REFINED_METRICS = ("accuracy_refined", "dice_refined", "false_positive_rate_refined")
"""Of runs with ``task.refine=paper``; they have no interval."""

LOCALIZATION_METRICS = ("pointing_game", "box_iou", "lesions_hit_iou50", "lesions_hit_centre")
"""Of classifiers whose maps are judged (``task=localization``); they have no interval."""

_MACRO = ("precision", "recall", "f1")
_PRESENT = tuple(f"{name}_present" for name in _MACRO)


def test_metrics(classes: Iterable[Classes]) -> tuple[str, ...]:
    """All test metrics of datasets with these classes."""
    each = list(dict.fromkeys(classes))
    of_lesions = [item.accuracy_lesions for item in each]
    of_sides = [name for item in each for name in (item.auroc_positive, item.auroc_lesions)]
    names = ("accuracy", *of_lesions, *_MACRO, *_PRESENT, "auroc", *of_sides, *MASK_METRICS)
    names += (*LOCALIZATION_METRICS, *REFINED_METRICS)
    return tuple(dict.fromkeys(name for name in names if name))


def shown_metrics(classes: Iterable[Classes]) -> tuple[str, ...]:
    """Those that experiments and evaluations show: fewer, because each stands with its interval."""
    left_out = {"precision", "recall", "precision_present", "recall_present"}
    left_out |= {"iou", "pixel_accuracy", "false_positive_rate", *LOCALIZATION_METRICS, *REFINED_METRICS}
    return tuple(name for name in test_metrics(classes) if name not in left_out)


def without_doubles(names: Iterable[str], known: Iterable[set[str]]) -> list[str]:
    """``names`` without ``f1`` and its like where every run that has one has ``f1_present`` as well, which replaces it.

    Where a class has no test image, ``f1`` counts it as 0 and ``f1_present`` leaves it out.

    Args:
        names: of metrics.
        known: of each run, the metrics that it has.
    """
    held = [own & {*_MACRO, *_PRESENT} for own in known]
    doubled = {
        name
        for name, present in zip(_MACRO, _PRESENT, strict=True)
        if any(name in own for own in held) and all(present in own for own in held if name in own)
    }
    return [name for name in names if name not in doubled]
