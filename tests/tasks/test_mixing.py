"""mixup and CutMix: what is drawn, what is mixed, and which losses it has."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from busi_lab.errors import UserError
from busi_lab.tasks import MaskTask, MultiTask, SegmentationTask
from busi_lab.tasks.mixing import NOTHING_MIXED, Mix, Mixing
from tests.tasks.test_tasks import OPTIM, SCHEDULER, make_batches, make_task

PARTNER = torch.tensor([1, 0, 3, 2])
UP = Mix(PARTNER, 0.75)
CUT = Mix(PARTNER, 1 - 32 * 16 / 64**2, (slice(0, 32), slice(48, 64)))


def make_mask_task(task: type[MaskTask], **more: Any) -> MaskTask:
    model = {"name": "smp", "arch": "Linknet", "encoder": "tu-test_efficientnet", "weights": "none"}
    arguments = {"image_size": 64, "optim": OPTIM, "scheduler": SCHEDULER, "loss": {"dice": 1.0}, **more}
    return task(model=model, **arguments)


def test_shares_and_boxes_are_drawn_as_asked() -> None:
    torch.manual_seed(0)
    assert Mixing(0, 0).draw(4, 64) is NOTHING_MIXED
    ups = [Mixing(0.4, 0).draw(4, 64) for _ in range(300)]
    shares = torch.tensor([mix.share for mix in ups])
    assert all(mix.box is None for mix in ups)
    assert abs(float(shares.mean()) - 0.5) < 0.05
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.02)  # of a beta distribution
    cuts = [Mixing(0, 1.0).draw(4, 64) for _ in range(300)]
    for mix in cuts:
        assert mix.box is not None and mix.partner is not None and sorted(mix.partner.tolist()) == [0, 1, 2, 3]
        inside = torch.zeros(64, 64)
        inside[mix.box] = 1
        assert mix.share == pytest.approx(1 - float(inside.mean()))
    assert min(mix.share for mix in cuts) < 0.3 and max(mix.share for mix in cuts) > 0.95
    kinds = [Mixing(0.4, 1.0).draw(4, 64).box is None for _ in range(300)]
    assert 120 < sum(kinds) < 180


def test_shares_are_drawn_in_half_precision_as_well() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        torch.manual_seed(0)
        found = Mixing(0.4, 0).draw(4, 64).share
    finally:
        torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    assert Mixing(0.4, 0).draw(4, 64).share == found


def test_what_is_mixed() -> None:
    image = torch.rand(4, 3, 64, 64)
    assert NOTHING_MIXED.images(image) is image
    assert torch.allclose(UP.images(image), 0.75 * image + 0.25 * image[PARTNER])
    cut = CUT.images(image)
    assert torch.equal(cut[:, :, :32, 48:], image[PARTNER][:, :, :32, 48:])
    assert torch.equal(cut[:, :, 32:], image[:, :, 32:]) and torch.equal(cut[..., :48], image[..., :48])


@pytest.mark.parametrize("mix", [UP, CUT])
def test_the_loss_of_a_joint_task_is_that_of_what_was_mixed(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_mask_task(MultiTask, mixup=0.4)
    assert isinstance(task, MultiTask)
    monkeypatch.setattr(task._mixing, "draw", lambda images, size: mix)
    batch = next(iter(make_batches()))
    seen: list[Tensor] = []
    task.network.register_forward_hook(lambda network, inputs, outputs: seen.append(outputs))
    loss = task.training_step(batch, 0)
    outputs: Any = seen[0]
    assert torch.equal(task(batch["image"], mix).masks, outputs.masks)
    label, mask = batch["label"], batch["mask"]
    classes = mix.share * F.cross_entropy(outputs.classes, label)
    classes += (1 - mix.share) * F.cross_entropy(outputs.classes, label[PARTNER])
    if mix.box is None:
        masks = 0.75 * task.masks.loss(outputs.masks, mask) + 0.25 * task.masks.loss(outputs.masks, mask[PARTNER])
    else:
        pasted = mask.clone()
        pasted[:, :, :32, 48:] = mask[PARTNER][:, :, :32, 48:]
        masks = task.masks.loss(outputs.masks, pasted)
    assert float(loss) == pytest.approx(float(classes + masks), rel=1e-5)
    assert torch.equal(task._gathered["train"]["lesion"][0], mask.flatten(1).sum(dim=1))  # judged by its own mask


@pytest.mark.parametrize("task", [make_task(mixup=0.4), make_mask_task(SegmentationTask, cutmix=1.0)])
def test_nothing_is_mixed_outside_training(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = next(iter(make_batches()))
    state = torch.get_rng_state()
    task.eval()
    task.validation_step(batch, 0)
    assert torch.equal(torch.get_rng_state(), state)
    task.train()
    task.training_step(batch, 0)
    assert not torch.equal(torch.get_rng_state(), state)


def test_a_parameter_that_none_is() -> None:
    for arguments, name in (((-1, 0), "mixup=-1"), ((0, True), "cutmix=True")):
        with pytest.raises(UserError, match=rf"^task\.{name}: expected 0, or the parameter of a beta distribution"):
            Mixing(*arguments)
