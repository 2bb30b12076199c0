"""One encoder or two: a network for both tasks against a classifier and a segmenter on the same images."""

from dataclasses import dataclass

from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.settings import Settings
from busi_lab.report.results.tables import Row, Table

_SMP_TIMM = "tu-"  # segmentation-models-pytorch's prefix of timm's models
_FIXED = {"mobilenet_unet": "mobilenetv1_100"}  # networks of ours whose encoder is no setting


@dataclass(frozen=True)
class Pair:
    """A joint network beside a pair of networks; ``encoder`` is the one that all three have, None where unlike.

    ``known`` says whether the encoders of all three are known: else nothing is claimed of them.
    """

    multitask: Table
    joint: Row
    classifier: Row
    segmenter: Row
    encoder: str | None
    known: bool


def pairs(analysis: Analysis) -> list[Pair]:
    """One comparison for each multitask table, where both tasks have a ranked run on the same data and test images.

    Folds that are pooled are left out; the tests between models have their images together.
    """
    held = {
        (table.task, table.data_digest, table.test_digest): table
        for table in analysis.tables
        if table.rows[0].rank is not None
        and table.data_digest
        and table.test_digest
        and table.number not in analysis.fold_tables
    }
    found = []
    for (task, data, test), table in held.items():
        classification, segmentation = (held.get((other, data, test)) for other in ("classification", "segmentation"))
        if task == "multitask" and classification and segmentation:
            found.append(_pair(table, classification, segmentation))
    return found


def encoder_of(settings: Settings | None) -> str | None:
    """The encoder that a run was configured with, by timm's name; None where its configuration does not say it."""
    if settings is None:
        return None
    named = settings.get("model.encoder") or settings.get("model.backbone")
    return named.removeprefix(_SMP_TIMM) if named else _FIXED.get(settings.get("model.name", ""))


def _choose(table: Table, encoder: str) -> Row | None:
    """The best run by validation with this encoder."""
    return next((row for row in table.rows if row.rank is not None and encoder_of(row.settings) == encoder), None)


def _pair(multitask: Table, classification: Table, segmentation: Table) -> Pair:
    joint = multitask.rows[0]
    encoder = encoder_of(joint.settings)
    if encoder:
        classifier, segmenter = _choose(classification, encoder), _choose(segmentation, encoder)
        if classifier and segmenter:
            return Pair(multitask, joint, classifier, segmenter, encoder, known=True)
    rows = (joint, classification.rows[0], segmentation.rows[0])
    return Pair(multitask, *rows, encoder=None, known=all(encoder_of(row.settings) for row in rows))
