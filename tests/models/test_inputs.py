"""What is done to scans before a network sees them."""

import pytest
import torch

from busi_lab.tasks import ClassificationTask

OPTIM = {"name": "adam", "lr": 1e-3, "weight_decay": 0.0}


@pytest.mark.parametrize(("standardize", "alike"), [(True, True), (False, False)])
def test_a_standardized_scan_does_not_depend_on_gain_and_offset(standardize: bool, alike: bool) -> None:
    model = {"name": "timm", "backbone": "test_efficientnet", "weights": "none", "standardize": standardize}
    torch.manual_seed(0)
    task = ClassificationTask(model, 32, OPTIM, {"name": "none"}).eval()
    scan = torch.randint(20, 100, (1, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        logits = [task(image).classes for image in (scan, scan * 2 + 30)]
    assert torch.allclose(logits[0], logits[1], atol=2e-2 if alike else 0) is alike
    loaded = ClassificationTask(**task.hparams)
    loaded.load_state_dict(task.state_dict())
    with torch.no_grad():
        assert torch.equal(loaded.eval()(scan).classes, logits[0])


def test_an_even_scan_stays_finite() -> None:
    model = {"name": "timm", "backbone": "test_efficientnet", "weights": "none", "standardize": True}
    task = ClassificationTask(model, 32, OPTIM, {"name": "none"}).eval()
    with torch.no_grad():
        assert task(torch.full((1, 1, 32, 32), 77, dtype=torch.uint8)).classes.isfinite().all()
