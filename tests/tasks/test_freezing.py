"""What stays as it is while a task trains, from when on everything trains, and a rate for each layer."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from busi_lab.errors import UserError
from busi_lab.tasks import ClassificationTask, MultiTask
from tests.tasks.test_tasks import OPTIM, make_batches, make_mask_task, make_task, make_trainer


def changed(task: Any, before: dict[str, torch.Tensor]) -> set[str]:
    after = task.network.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def copied(task: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.network.state_dict().items()}


def test_named_layers_keep_weights_and_statistics(tmp_path: Path) -> None:
    task = make_task({"freeze": ["conv_stem", "bn1", "blocks.0"]})
    before = copied(task)
    make_trainer(tmp_path, max_epochs=1).fit(task, make_batches())
    frozen = {name for name in before if name.startswith(("conv_stem.", "bn1.", "blocks.0."))}
    assert frozen and not frozen & changed(task, before)
    assert {name for name in before if name.startswith("blocks.1.") and "num" not in name} <= changed(task, before)
    task.train()
    assert not task.network.blocks[0].training and task.network.blocks[1].training


def test_layers_of_a_padded_network_go_by_their_own_names(tmp_path: Path) -> None:
    task = make_mask_task(MultiTask, {"freeze": ["encoder"]})
    before = copied(task)
    make_trainer(tmp_path, max_epochs=1).fit(task, make_batches())
    assert {name.split(".")[1] for name in changed(task, before)} == {
        "decoder",
        "segmentation_head",
        "classification_head",
    }


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (
            ["blocks.9"],
            r"model\.freeze: test_efficientnet has no layer blocks\.9 with weights; did you mean blocks\.",
        ),
        (["stem"], r"no layer stem with weights; .*outermost layers: conv_stem, bn1, blocks, conv_head, bn2, classif"),
        (["conv_stem", "bn1", "blocks", "conv_head", "bn2", "classifier"], r"leaves no layer of test_effi.* to train"),
    ],
)
def test_layers_that_cannot_be_frozen(freeze: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_task({"freeze": freeze})
    assert "\n" not in str(caught.value)


def test_everything_trains_from_an_epoch_on_also_after_a_cut(tmp_path: Path) -> None:
    settings = {"freeze": "backbone", "unfreeze_epoch": 2}
    task = make_task(settings)
    before = copied(task)
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(task, make_batches())
    assert changed(task, before) == {"classifier.weight", "classifier.bias"}
    optimizer = trainer.optimizers[0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(task.network.parameters()))
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    whole = make_task(settings)
    whole.load_state_dict(task.state_dict())
    again = ClassificationTask(**dict(task.hparams))
    longer = make_trainer(tmp_path, max_epochs=4)
    longer.fit(again, make_batches(), ckpt_path=tmp_path / "cut.ckpt", weights_only=True)
    assert {"conv_stem.weight", "bn1.running_mean"} <= changed(again, before)
    assert all(module.training for module in again.network.modules() if isinstance(module, nn.BatchNorm2d))
    longer.save_checkpoint(tmp_path / "later.ckpt")
    third = ClassificationTask(**dict(task.hparams))
    make_trainer(tmp_path, max_epochs=5).fit(
        third, make_batches(), ckpt_path=tmp_path / "later.ckpt", weights_only=True
    )
    assert all(parameter.requires_grad for parameter in third.network.parameters())


def test_the_rate_falls_from_layer_to_layer() -> None:
    task = make_task({"freeze": ["conv_stem"], "unfreeze_epoch": 1}, optim={**OPTIM, "layer_decay": 0.5})
    groups = task.configure_optimizers().param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(task.network.parameters()))
    network = task.network
    assert rates[id(network.classifier.weight)] == pytest.approx(1e-3)
    assert rates[id(network.conv_stem.weight)] == min(rates.values())
    steps = sorted(set(rates.values()))
    assert all(high == pytest.approx(2 * low) for low, high in pairwise(steps))
    assert not network.conv_stem.weight.requires_grad


def test_a_network_without_an_order_of_layers_takes_no_rate_for_each() -> None:
    with pytest.raises(UserError, match=r"optim\.layer_decay=0\.5: the order of the layers of Unet-.* is not known"):
        make_mask_task(optim={**OPTIM, "layer_decay": 0.5})
