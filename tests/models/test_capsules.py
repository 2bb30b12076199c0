"""Capsules: squashing and routing against numbers computed by hand, layers, and what is refused."""

from math import exp
from typing import Any

import pytest
import torch

from busi_lab.errors import UserError
from busi_lab.models import Wanted, build_network, network_settings
from busi_lab.models.capsules import route, squash

CLASSES = Wanted(3, False, 64)


def build(name: str = "capsules", wanted: Wanted = CLASSES, **settings: Any) -> Any:
    return build_network(network_settings({"name": name, "weights": "none", **settings}), wanted)


def test_squashing_keeps_the_direction_and_bounds_the_length() -> None:
    squashed = squash(torch.tensor([[3.0, 4.0], [0.0, 0.5], [0.0, 0.0]]))
    # lengths 5, 1/2 and 0 become 25/26, 1/5 and 0
    assert squashed.flatten().tolist() == pytest.approx([3 / 5 * 25 / 26, 4 / 5 * 25 / 26, 0, 0.2, 0, 0])


def test_routing_follows_agreement() -> None:
    # two capsules vote for two classes, in one dimension: they agree on the first and cancel out on the second
    votes = torch.tensor([[[[1.0], [1.0]], [[1.0], [-1.0]]]])
    once = route(votes, 1)[0, :, 0].tolist()
    assert once == pytest.approx([1.0, 0.0])  # a half of each vote
    # squashed, the first is 1/2 long: both capsules then lean to it by a logit of 1/2
    lean = exp(0.5) / (exp(0.5) + 1)
    assert route(votes, 2)[0, :, 0].tolist() == pytest.approx([2 * lean, 0.0])
    again = 0.5 + (2 * lean) ** 2 / (1 + (2 * lean) ** 2)
    assert route(votes, 3)[0, :, 0].tolist() == pytest.approx([2 * exp(again) / (exp(again) + 1), 0.0])


def test_no_gradient_passes_through_the_couplings() -> None:
    votes = torch.tensor([[[[1.0], [1.0]], [[1.0], [-1.0]]]], requires_grad=True)
    route(votes, 2)[0, 0, 0].backward()  # type: ignore[no-untyped-call]
    assert votes.grad is not None
    assert votes.grad[0, :, 0, 0].tolist() == pytest.approx([exp(0.5) / (exp(0.5) + 1)] * 2)


def test_the_sigmoid_of_a_class_logit_is_the_length_of_its_capsule() -> None:
    torch.manual_seed(0)
    network = build(filters=4, capsules=2).network.eval()
    kept: list[torch.Tensor] = []
    network.head.register_forward_hook(lambda module, inputs, output: kept.append(squash(output).norm(dim=-1)))
    logits = network(torch.rand(2, 3, 64, 64)).classes
    assert torch.allclose(logits.sigmoid(), kept[0], atol=1e-5)


def test_it_has_the_published_layers() -> None:
    network = build(in_chans=1, wanted=Wanted(3, False, 32)).network
    first, primary = 81 * 256 + 256, 81 * 256 * 256 + 256
    side = (32 - 8 - 9) // 2 + 1
    assert sum(p.numel() for p in network.parameters()) == first + primary + side * side * 32 * 3 * 16 * 8
    halved = build(in_chans=1, stride=2, wanted=Wanted(3, False, 64)).network
    assert halved.head.weight.shape == (10 * 10 * 32, 3, 16, 8)


@pytest.mark.parametrize(
    ("name", "wanted", "settings", "message"),
    [
        ("capsules", Wanted(3, False, 16), {}, r"data\.image_size=16 is too small for capsules: at least 17 is needed"),
        ("capsules", Wanted(3, False, 24), {"stride": 2}, r"data\.image_size=24 .* at least 25 is needed"),
        ("capsules", CLASSES, {"routing": 0}, r"model\.routing=0: expected at least 1"),
        ("capsules", CLASSES, {"weights": "imagenet"}, r"capsules has no pretrained weights"),
        ("capsules", CLASSES, {"backbone": "resnet18"}, r"model\.backbone: unknown key; known keys of capsules"),
        ("capsules", Wanted(3, True, 64), {}, r"capsules: gives classes alone"),
        ("custom_cnn", CLASSES, {"routing": 3}, r"model\.routing: unknown key; known keys of custom_cnn"),
        (
            "smp",
            Wanted(None, True, 64),
            {"decoder_channels": [8, 4]},
            r"decoder_channels=\[8, 4\]: expected null or five",
        ),
        (
            "smp",
            Wanted(None, True, 64),
            {"arch": "FPN", "decoder_channels": [16, 8, 8, 4, 4]},
            r"belongs to Unet, UnetPlusPlus or MAnet; found model\.arch=FPN",
        ),
    ],
)
def test_settings_that_are_refused(name: str, wanted: Wanted, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(name, wanted, **settings)
    assert "\n" not in str(caught.value)


def test_a_decoder_takes_more_filters() -> None:
    network = build("smp", Wanted(None, True, 64), encoder="vgg11_bn", decoder_channels=[32, 16, 16, 8, 24]).network
    assert network.network.segmentation_head[0].in_channels == 24
