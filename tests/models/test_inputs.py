"""What is done to scans before a network sees them."""

import numpy as np
import pytest
import torch
from torch import nn

from busi_lab.models.inputs import standardize
from busi_lab.run.parity import _exact_logits
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


@pytest.mark.parametrize(("dtype", "rest"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_scan_is_standardized_in_its_own_precision_or_in_32_bits(dtype: torch.dtype, rest: float) -> None:
    """The reference of an export's gate has 64 bits, and keeps them; so does the mean over views."""
    image = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = image.double()
    mean, deviation = exact.mean(dim=(2, 3), keepdim=True), exact.std(dim=(2, 3), keepdim=True, correction=0)
    (found,) = standardize(nn.Identity(), (image,))
    assert found.dtype == dtype
    assert (found.double() - (exact - mean) / (deviation + 1e-3)).abs().max() < rest


def test_the_reference_of_an_export_has_64_bits() -> None:
    model = {"name": "timm", "backbone": "test_efficientnet", "weights": "none", "standardize": True}
    task = ClassificationTask(model, 32, OPTIM, {"name": "none"}, views="flip").eval()
    seen: list[torch.dtype] = []
    for module in (task.network.conv_stem, task.network.classifier):  # type: ignore[union-attr]
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))  # type: ignore[operator]
    found = _exact_logits(task, np.zeros((1, 1, 32, 32), np.uint8), ["classes"])
    assert {*seen} == {torch.float64} and found["classes"].dtype == np.float64
