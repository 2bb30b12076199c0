"""Outlined lesions, one by one: by hand on tiny masks, and as tasks keep them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from busi_lab.tasks.lesions import OutlinedLesion, judge_lesions
from tests.tasks.test_tasks import make_batches, make_mask_task, make_trainer


def test_lesions_by_hand() -> None:
    truth, predicted, probabilities = np.zeros((8, 10), bool), np.zeros((8, 10), bool), np.full((8, 10), 0.25)
    truth[0:2, 0:4] = True  # 8 pixels
    truth[0:2, 6:8] = True  # 4, another lesion
    predicted[0:2, 2:7] = True  # 10 pixels, of which 4 lie in the first and 2 in the second
    probabilities[0:2, 2:7] = 0.75
    probabilities[0, 2] = 0.95
    predicted[4, 4] = predicted[5, 5] = True  # they meet at a corner, and touch no lesion
    probabilities[4, 4] = 0.75
    truth[7, 0] = True  # nothing touches it, so it counts nowhere
    first, second = judge_lesions(probabilities.astype(np.float32), predicted, truth)
    assert (first.pixels, first.iou) == (10, pytest.approx(6 / (10 + 8 + 4 - 6)))
    assert first.confidence == pytest.approx(0.77)
    assert second == OutlinedLesion(2, pytest.approx(0.5), 0.0)


def test_empty_masks_outline_nothing_and_everything_is_one_lesion() -> None:
    nothing, everything = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    sure = np.ones((4, 4), np.float32)
    assert judge_lesions(sure, nothing, everything) == []
    assert judge_lesions(sure, everything, nothing) == [OutlinedLesion(16, 1.0, 0.0)]
    assert judge_lesions(sure, everything, everything) == [OutlinedLesion(16, 1.0, 1.0)]


def test_a_test_and_a_validation_alone_keep_them_and_training_does_not(tmp_path: Path) -> None:
    task = make_mask_task()
    trainer = make_trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    trainer.fit(task, make_batches(), make_batches())
    assert task.outlined_lesions("val") == {}
    trainer.validate(task, make_batches(5, batch_size=2), verbose=False)
    assert list(task.outlined_lesions("val")) == [f"case ({i})" for i in range(5)]
    torch.nn.init.constant_(task.head_modules[-1][0].bias, 9.0)  # everything is lesion
    trainer.test(task, make_batches(5, batch_size=2), verbose=False)
    found = task.outlined_lesions("test")
    shares = [float(batch["mask"].float().mean()) for batch in make_batches(5, batch_size=1)]
    for (lesion,), share in zip(found.values(), shares, strict=True):
        assert lesion.pixels == 64 * 64 and lesion.confidence > 0.9
        assert lesion.iou == pytest.approx(share)
    rows = task.predictions()
    assert [row["iou"] or 0.0 for row in rows] == pytest.approx(shares)
