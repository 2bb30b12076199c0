import pytest
import torch

from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Wanted, build_network, network_settings
from busi_lab.models.registry import networks_that_give, our_networks

CNN, UNET = {"name": "custom_cnn", "in_chans": 3}, {"name": "mobilenet_unet", "in_chans": 1}


def build(wanted: Wanted, *members: object, weights: list[float] | None = None) -> BuiltModel:
    return build_network(
        network_settings({"name": "ensemble", "members": list(members), "weights_of": weights}), wanted
    )


@pytest.mark.parametrize("weights", [None, [3.0, 1.0]])
def test_its_probabilities_are_the_mean_of_those_of_its_members(weights: list[float] | None) -> None:
    torch.manual_seed(0)
    wanted = Wanted(3, True, 32)
    built = build(wanted, UNET, {**UNET, "in_chans": 3}, weights=weights)
    network, image = built.network.eval(), torch.rand(2, 1, 32, 32)
    first, second = network.get_submodule("members.0"), network.get_submodule("members.1")
    for part in (first, second):
        part.get_buffer("mean").fill_(0.3)
        part.get_buffer("std").fill_(0.2)
    with torch.no_grad():
        found = network(image)
        scaled = (image - 0.3) / 0.2
        answers = [
            first.get_submodule("network")(scaled),
            second.get_submodule("network")(scaled.expand(-1, 3, -1, -1)),
        ]
    share = 0.5 if weights is None else 0.75
    classes = share * answers[0].classes.softmax(1) + (1 - share) * answers[1].classes.softmax(1)
    masks = share * answers[0].masks.sigmoid() + (1 - share) * answers[1].masks.sigmoid()
    assert torch.allclose(found.classes.softmax(1), classes, atol=1e-6)
    assert torch.allclose(found.masks.sigmoid(), masks, atol=1e-6)
    assert (answers[0].masks - answers[1].masks).abs().max() > 0.01
    assert built.mean == (0.0,) and built.std == (1.0,)


def test_a_member_that_is_certain_leaves_logits_finite() -> None:
    built = build(Wanted(None, True, 32), UNET, UNET)
    with torch.no_grad():
        for part in ("members.0", "members.1"):
            head = built.network.get_submodule(f"{part}.network")
            for parameter in head.parameters():
                parameter.mul_(30)
        found = built.network.eval()(torch.rand(1, 1, 32, 32)).masks
    assert found.isfinite().all()


def test_members_that_make_no_mean_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.members: expected the group model of two runs at least, found 1"):
        build(Wanted(3, False, 32), CNN)
    with pytest.raises(UserError, match=r"model\.weights_of=\[1\.0\]: expected a factor of 0 or more for each of 2"):
        build(Wanted(3, False, 32), CNN, CNN, weights=[1.0])
    with pytest.raises(UserError, match=r"model\.name=custom_cnn: gives classes alone"):
        build(Wanted(None, True, 32), CNN, UNET)


def test_it_is_no_choice_of_a_configuration() -> None:
    assert "ensemble" not in {*our_networks(), *networks_that_give("both")}
    settings = network_settings({"name": "ensemble", "members": [CNN, CNN, UNET]})
    assert settings.label == "ensemble of 2 custom_cnn, mobilenet_unet"
