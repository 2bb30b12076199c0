"""A U-Net that is taught at every resolution of its decoder."""

import copy
from typing import Any

import pytest
import torch

from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Outputs, Wanted, build_network, network_settings
from busi_lab.tasks.segmentation import SegmentationPart


def build(size: int = 64, classes: int | None = 3, **model: Any) -> BuiltModel:
    settings = {"name": "smp", "encoder": "tu-test_resnet", "weights": "none", "decoder_channels": [16, 12, 8, 6, 4]}
    return build_network(network_settings({**settings, **model}), Wanted(classes, True, size))


def test_inner_stages_answer_in_training_alone_and_nothing_else_changes() -> None:
    built, plain = build(deep_supervision=True), build()
    added = {name for name in built.network.state_dict() if "auxiliary_heads" in name}
    assert set(plain.network.state_dict()) == set(built.network.state_dict()) - added and len(added) == 8
    assert any(name.startswith("network.auxiliary_heads") for name in added)
    plain.network.load_state_dict({k: v for k, v in built.network.state_dict().items() if k not in added})
    image = torch.rand(2, 3, 64, 64)
    ours, theirs = built.network.eval()(image), plain.network.eval()(image)
    assert torch.equal(ours.masks, theirs.masks) and torch.equal(ours.classes, theirs.classes)
    assert ours.auxiliary is None and ours.auxiliary_factors is None
    for network in (built.network.train(), copy.deepcopy(built.network)):
        answer = network(image)
        assert [list(logits.shape) for logits in answer.auxiliary] == [[2, 1, 64, 64]] * 4
        assert answer.auxiliary_factors == (0.5, 0.25, 0.125, 0.0625)
        sum(logits.sum() for logits in answer.auxiliary).backward()
        inner: Any = network
        blocks = inner.network.decoder.blocks
        assert all(next(block.parameters()).grad is not None for block in blocks[:-1])
        assert next(blocks[-1].parameters()).grad is None  # the last stage has the final logits
        assert not inner.network._stages
    heads = {id(parameter) for head in built.heads for parameter in head.parameters()}
    assert all(id(value) in heads for name, value in built.network.named_parameters() if "auxiliary" in name)


def test_logits_of_a_padded_image_have_its_size() -> None:
    answer = build(80, None, deep_supervision=True).network.train()(torch.rand(2, 3, 80, 80))
    assert {tuple(logits.shape) for logits in (answer.masks, *answer.auxiliary)} == {(2, 1, 80, 80)}


def test_the_loss_has_the_factors_of_the_network() -> None:
    part = SegmentationPart({"bce": 1.0})
    assert part.loss is not None
    masks, finer, coarser = (torch.randn(2, 1, 8, 8) for _ in range(3))
    truth = (torch.rand(2, 1, 8, 8) > 0.5).byte()
    outputs = Outputs(None, masks, (finer, coarser), auxiliary_factors=(0.5, 0.25))
    expected = part.loss(masks, truth) + part.loss(finer, truth) / 2 + part.loss(coarser, truth) / 4
    assert torch.allclose(part.total_loss(outputs, truth, "train"), expected)
    assert torch.equal(part.total_loss(outputs, truth, "val"), part.loss(masks, truth))


def test_another_architecture_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^model\.deep_supervision=true belongs to model\.arch=Unet; found model"):
        build(arch="FPN", deep_supervision=True, decoder_channels=None)
