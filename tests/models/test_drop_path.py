"""Blocks that are left out at random in training: where there are some, and what it does."""

from typing import Any

import pytest
import torch
from timm.layers import DropPath

from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Wanted, build_network, network_settings

CLASSES, MASKS = Wanted(3, False, 64), Wanted(None, True, 80)


def build(wanted: Wanted, **model: Any) -> BuiltModel:
    return build_network(network_settings({"weights": "none", **model}), wanted)


@pytest.mark.parametrize(
    ("wanted", "model"),
    [
        (CLASSES, {"name": "timm", "backbone": "test_convnext"}),
        (MASKS, {"name": "smp", "encoder": "tu-test_resnet", "arch": "Unet"}),
    ],
)
def test_probabilities_rise_to_that_of_the_last_block_and_act_in_training_alone(
    wanted: Wanted, model: dict[str, Any]
) -> None:
    network = build(wanted, **model, drop_path=0.4).network
    rates = [float(module.drop_prob or 0) for module in network.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates) and rates[-1] == pytest.approx(0.4)
    with torch.no_grad():
        for weight in network.parameters():  # blocks begin with hardly any effect, or none
            weight.normal_(0, 0.2)
    image = torch.rand(1, 3, wanted.image_size, wanted.image_size).expand(8, -1, -1, -1)
    plain = build(wanted, **model).network
    assert not [module for module in plain.modules() if isinstance(module, DropPath) and module.drop_prob]
    assert plain.state_dict().keys() == network.state_dict().keys()
    plain.load_state_dict(network.state_dict())
    for each in (network, plain):
        each.eval()
    answers = [next(item for item in each(image) if item is not None) for each in (network, plain)]
    assert torch.equal(*answers)
    for module in network.modules():
        module.training = isinstance(module, DropPath)
    dropped = next(item for item in network(image) if item is not None)
    assert not torch.allclose(dropped[0], dropped[1:]) and torch.isfinite(dropped).all()


@pytest.mark.parametrize(
    ("wanted", "model", "line"),
    [
        (CLASSES, {"name": "timm", "backbone": "mobilenetv1_100"}, r"model\.backbone=mobilenetv1_100 has no residual"),
        (CLASSES, {"name": "timm", "backbone": "test_vit", "drop_path": 1.0}, r"drop_path=1\.0: expected at least 0"),
        (CLASSES, {"name": "timm", "backbone": "vgg11"}, r"model\.backbone=vgg11 has no residual blocks that could be"),
        (MASKS, {"name": "smp", "encoder": "tu-test_efficientnet"}, r"model\.encoder=tu-test_efficientnet has no "),
        (MASKS, {"name": "smp", "encoder": "resnet18"}, r"model\.encoder=resnet18, which is none of timm, has no"),
    ],
)
def test_a_backbone_without_such_blocks_is_one_line(wanted: Wanted, model: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        build(wanted, **{"drop_path": 0.1, **model})
    assert "\n" not in str(caught.value)
