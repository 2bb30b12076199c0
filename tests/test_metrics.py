"""Metrics against hand-computed and published figures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from busi_lab.metrics import SegmentationMetrics, classification_metrics, hausdorff95, present_averages

# Table IV of Dajam & Qahmash (2025), rows actual, columns predicted, with Table III's macro figures
PUBLISHED = {
    "MobileNet": ([[84, 3, 0], [0, 42, 0], [0, 0, 26]], 152 / 155, (0.98, 0.98, 0.99, 0.98)),
    "InceptionV3": ([[85, 0, 2], [0, 37, 5], [0, 0, 26]], 148 / 155, (0.95, 0.93, 0.95, 0.94)),
}


def from_confusion(matrix: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and labels that give this confusion matrix."""
    pairs = [(a, p) for a, row in enumerate(matrix) for p, count in enumerate(row) for _ in range(count)]
    labels = torch.tensor([actual for actual, _ in pairs])
    predicted = torch.nn.functional.one_hot(torch.tensor([p for _, p in pairs]), len(matrix))
    return predicted.float() * 0.8 + 0.2 / len(matrix), labels


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_confusion_matrices_give_the_published_figures(model: str) -> None:
    matrix, accuracy, printed = PUBLISHED[model]
    metrics = classification_metrics()
    metrics.update(*from_confusion(matrix))
    values = metrics.compute()
    assert values["confusion_matrix"].tolist() == matrix
    assert values["accuracy"].item() == pytest.approx(accuracy)
    for name, figure in zip(("accuracy", "precision", "recall", "f1"), printed, strict=True):
        # the paper cuts or rounds to two decimals
        assert abs(values[name].item() - figure) < 0.01, name


def test_macro_averages_by_hand() -> None:
    metrics = classification_metrics()
    metrics.update(*from_confusion([[3, 1, 0], [0, 2, 0], [1, 0, 1]]))
    values = metrics.compute()
    assert values["precision"].item() == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)
    assert values["recall"].item() == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)
    assert values["f1"].item() == pytest.approx((3 / 4 + 4 / 5 + 2 / 3) / 3)


def test_auroc_by_hand() -> None:
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.1, 0.35, 0.55]])
    labels = torch.tensor([0, 1, 1, 2])
    metrics = classification_metrics()
    metrics.update(probabilities, labels)
    values = metrics.compute()
    # malignant scores 0.7 and 0.4 against 0.3 and 0.35: all four pairs in order; the other classes likewise
    assert values["auroc_malignant"].item() == 1.0
    assert values["auroc"].item() == pytest.approx(1.0)
    metrics.reset()
    metrics.update(probabilities.flip(0), labels)
    # reversed: malignant scores 0.4 and 0.7 (rows 1, 2) against 0.35 and 0.3, again in order
    assert metrics.compute()["auroc_malignant"].item() == 1.0
    metrics.reset()
    metrics.update(probabilities, torch.tensor([1, 0, 1, 2]))
    # malignant scores 0.3, 0.4 against 0.7, 0.35: one of four pairs in order
    assert metrics.compute()["auroc_malignant"].item() == pytest.approx(0.25)


@settings(deadline=None, max_examples=25)
@given(st.integers(6, 40), st.integers(0, 10_000), st.integers(1, 9))
def test_metrics_do_not_depend_on_batches(count: int, seed: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(count, 3, generator=generator).softmax(1)
    labels = torch.arange(count) % 3
    whole, parts = classification_metrics(), classification_metrics()
    whole.update(probabilities, labels)
    for start in range(0, count, batch):
        parts.update(probabilities[start : start + batch], labels[start : start + batch])
    expected, found = whole.compute(), parts.compute()
    for name, value in expected.items():
        assert torch.allclose(value.float(), found[name].float()), name
        assert all(map(math.isfinite, value.flatten().tolist())), name


def test_a_class_without_images_is_no_part_of_the_means() -> None:
    # no normal image, but four of ten are called normal
    metrics = classification_metrics()
    metrics.update(*from_confusion([[3, 0, 2], [1, 2, 2], [0, 0, 0]]))
    values = metrics.compute()
    assert values["recall"].item() == pytest.approx((3 / 5 + 2 / 5 + 0) / 3)  # as ever, and beside accuracy 0.5 too low
    present = present_averages(values["confusion_matrix"])
    assert {name: value.item() for name, value in present.items()} == pytest.approx(
        {
            "precision_present": (3 / 4 + 1) / 2,
            "recall_present": (3 / 5 + 2 / 5) / 2,
            "f1_present": (6 / 9 + 4 / 7) / 2,
        }
    )
    assert present_averages(torch.tensor([[3, 0, 2], [1, 2, 2], [0, 0, 1]])) == {}


def test_figures_of_benign_and_malignant_images_leave_normal_ones_out() -> None:
    metrics = classification_metrics()
    probabilities = torch.tensor(
        [[0.2, 0.1, 0.7], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0], [0.3, 0.4, 0.3], [0.05, 0.9, 0.05]], dtype=torch.float32
    )
    metrics.update(probabilities, torch.tensor([0, 1, 1, 0, 2]))
    values = metrics.compute()
    # malignant 3 / 4 and 1 / 2 (of nothing) against benign 1 / 3 and 4 / 7: three of four pairs are in order
    assert values["auroc_benign_malignant"].item() == pytest.approx(3 / 4)
    assert values["accuracy_without_normal"].item() == pytest.approx(2 / 4)
    metrics.reset()
    metrics.update(probabilities, torch.tensor([0, 2, 2, 0, 2]))
    values = metrics.compute()
    assert values["auroc_benign_malignant"].isnan() and values["accuracy_without_normal"].isnan()


def test_auroc_leaves_out_classes_that_do_not_occur() -> None:
    metrics = classification_metrics()
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.55, 0.4, 0.05], [0.2, 0.7, 0.1]])
    metrics.update(probabilities, torch.tensor([0, 0, 1, 1]))
    # malignant: 0.4 ties with 0.4, 0.7 beats both: (1 + 0.5 + 2) / 4; benign: 0.6 and 0.5 against 0.55 and 0.2
    assert metrics.compute()["auroc"].item() == pytest.approx((3.5 / 4 + 3 / 4) / 2)


Counts = list[tuple[int, int, int, int]]  # true positive, predicted, lesion, pixels


def mask_metrics(
    images: Counts, distances: list[float] | None = None, millimetres: list[float] | None = None
) -> dict[str, float]:
    metrics = SegmentationMetrics()
    columns = [torch.tensor(column) for column in zip(*images, strict=True)]
    metrics.update(*columns, *(None if each is None else torch.tensor(each) for each in (distances, millimetres)))
    return {name: value.item() for name, value in metrics.compute().items()}


def test_mask_metrics_by_hand() -> None:
    # a good outline, a missed lesion, a normal scan with a false alarm, one without
    images = [(8, 10, 12, 100), (0, 0, 20, 100), (0, 5, 0, 100), (0, 0, 0, 100)]
    values = mask_metrics(images, [2.5, math.nan, math.nan, math.nan], [0.5, math.nan, math.nan, math.nan])
    assert values == pytest.approx(
        {
            "dice": (16 / 22 + 0) / 2,
            "iou": (8 / 14 + 0) / 2,
            "dice_pooled": 16 / 47,
            "pixel_accuracy": (94 + 80 + 95 + 100) / 400,
            "pixel_precision": 8 / 15,
            "pixel_recall": 8 / 32,
            "hd95_pixels": 2.5,
            "hd95_mm": 0.5,
            "missed_lesions": 0.5,
            "false_positive_rate": 0.5,
            "dice_empty_as_one": (16 / 22 + 0 + 0 + 1) / 4,
        }
    )


def test_what_no_image_defines_is_left_out() -> None:
    lesions = mask_metrics([(0, 0, 4, 16)])
    assert lesions["dice"] == lesions["pixel_precision"] == 0
    assert not {"false_positive_rate", "hd95_pixels", "hd95_mm"} & set(lesions)
    normals = mask_metrics([(0, 0, 0, 16)])
    assert normals == {"pixel_accuracy": 1, "false_positive_rate": 0, "dice_empty_as_one": 1}
    whole = mask_metrics([(16, 16, 16, 16)])  # a fully white mask
    assert whole["dice"] == whole["iou"] == whole["pixel_accuracy"] == 1


@st.composite
def images(draw: st.DrawFn) -> Counts:
    found = []
    for _ in range(draw(st.integers(1, 12))):
        hits, missed, alarms, rest = (draw(st.integers(0, 50)) for _ in range(4))
        found.append((hits, hits + alarms, hits + missed, hits + missed + alarms + rest + 1))
    return found


@given(images(), st.data())
@settings(max_examples=60)
def test_mask_metrics_depend_on_no_batch_and_no_order(images: Counts, data: st.DataObject) -> None:
    distances = [float(i) if hits else math.nan for i, (hits, *_) in enumerate(images)]
    whole = mask_metrics(images, distances)
    order = data.draw(st.permutations(range(len(images))))
    metrics = SegmentationMetrics()
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        columns = [torch.tensor([images[i][column] for i in batch]) for column in range(4)]
        metrics.update(*columns, torch.tensor([distances[i] for i in batch]))
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(whole)


def square(row: int, column: int, side: int, size: int = 40) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[row : row + side, column : column + side] = True
    return mask


def test_hausdorff_distances_by_hand() -> None:
    assert hausdorff95(square(5, 5, 10), square(5, 5, 10)) == 0
    # squares 3 apart along an axis: 10 of 36 boundary pixels lie 3 away, more than 5 % of them
    assert hausdorff95(square(5, 5, 10), square(5, 8, 10)) == pytest.approx(3)
    assert hausdorff95(square(0, 0, 1), square(3, 4, 1)) == pytest.approx(5)
    # rows half a unit apart, columns two: 3 * 0.5 down and 4 * 2 across
    assert hausdorff95(square(0, 0, 1), square(3, 4, 1), (0.5, 2)) == pytest.approx(np.hypot(1.5, 8))
    # one far pixel among many counts in one direction alone: it is the only one of its 37, below 5 %
    lonely = square(5, 5, 10)
    lonely[39, 39] = True
    assert hausdorff95(lonely, square(5, 5, 10)) == 0
    assert math.isnan(hausdorff95(square(0, 0, 0), square(5, 5, 10)))
    assert math.isnan(hausdorff95(square(5, 5, 10), square(0, 0, 0)))


def test_the_edge_of_the_image_is_a_boundary() -> None:
    assert hausdorff95(np.ones((9, 9), dtype=bool), square(4, 4, 1, 9)) == pytest.approx(np.hypot(4, 4), abs=0.6)
