"""The networks of published systems: layers and parameters against their sources, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from busi_lab.errors import UserError
from busi_lab.losses import SegmentationLoss
from busi_lab.models import Outputs, Wanted, build_network, network_settings
from busi_lab.models.attention import CBAM, CoordinateAttention
from busi_lab.tasks.segmentation import SegmentationPart

BOTH = Wanted(3, True, 64)


def build(name: str, wanted: Wanted = BOTH, **settings: Any) -> Any:
    return build_network(network_settings({"name": name, "weights": "none", **settings}), wanted)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_fused_encoders_have_mobilenets_and_xceptions_features() -> None:
    network = build("fused_encoders", Wanted(3, False, 96)).network
    assert network.head[1].in_features == 1024 + 2048
    # without their last layers, as Keras counts them: MobileNet 3,228,864 and Xception 20,861,480, of which 21,888 and
    # 54,528 are means and variances of batch norm
    counts = [parameters(encoder) for encoder in network.encoders]
    assert counts == [3_228_864 - 21_888, 20_861_480 - 54_528]


def test_every_encoder_gets_the_scale_it_expects() -> None:
    built = build("fused_encoders", Wanted(3, False, 64), backbones=["resnet18", "mobilenetv1_100"])
    assert (built.mean, built.std) == ((0.0,) * 3, (1.0,) * 3)
    seen: list[torch.Tensor] = []
    for encoder in built.network.encoders:
        encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0][0, :, 0, 0]))
    built.network.eval()(torch.full((1, 3, 64, 64), 0.75))
    imagenet = [(0.75 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert seen[0].tolist() == pytest.approx(imagenet)  # ResNet's
    assert seen[1].tolist() == [0.5, 0.5, 0.5]  # MobileNet's: (0.75 - 0.5) / 0.5


def test_each_encoder_takes_its_own_file_of_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSI_WEIGHTS", str(tmp_path))
    names = ["test_resnet", "test_efficientnet"]
    states = {name: timm.create_model(name).state_dict() for name in names}
    for name, state in states.items():
        save_file(state, tmp_path / f"{name}.safetensors")
    network = build("fused_encoders", Wanted(3, False, 64), weights="imagenet", backbones=names).network
    for name, encoder in zip(names, network.encoders, strict=True):
        assert all(torch.equal(value, states[name][key]) for key, value in encoder.state_dict().items())


def test_the_nnunet_has_the_published_layers() -> None:
    network = build("aumente_nnunet").network.network
    widths = (32, 64, 128, 256, 320)
    assert [level[3].out_channels for level in network.encoder.levels] == list(widths)
    pairs = list(zip((1, *widths[:-1]), widths, strict=True))
    encoder = sum(9 * (i * o + o * o) for i, o in [*pairs, (320, 320)])
    decoder = 9 * sum(
        i * m + m * o for i, m, o in ((640, 256, 256), (512, 128, 128), (256, 64, 64), (128, 32, 32), (64, 32, 16))
    )
    ups = sum(4 * w * w + w for w in widths)
    masks = 17 + sum(f * f * w * w + w + w + 1 for w, f in ((32, 2), (64, 4), (128, 8)))
    classes = 9 * (320 * 320 + 256 * 320 + 960 * 512) + (512 * 256 + 256) + (256 * 3 + 3)
    assert parameters(network) == encoder + decoder + ups + masks + classes


def test_the_unetpp_has_the_published_layers() -> None:
    network = build("aumente_unetpp").network.network
    widths = (24, 48, 96, 192, 384)

    def double(i: int, o: int) -> int:
        return 9 * i * o + 9 * o * o + 2 * (o + 2 * o)  # biases, and scale and shift of the norms

    encoder = sum(double(i, o) for i, o in zip((1, *widths[:-1]), widths, strict=True))
    decoder = 0
    for column in range(1, 5):
        for level in range(5 - column):
            below, width = widths[level + 1], widths[level]
            up = below if level == 0 else below // 2
            decoder += 4 * below * up + up + double(column * width + up, width)
    classes = double(192, 384) + double(3 * 384, 512) + (512 * 256 + 256) + (256 * 3 + 3)
    assert parameters(network) == encoder + decoder + 4 * 25 + classes


@pytest.mark.parametrize("name", ["aumente_nnunet", "aumente_unetpp"])
def test_deep_supervision_is_there_in_training_alone(name: str) -> None:
    network = build(name).network
    image = torch.rand(1, 1, 72, 72)
    trained, judged = network.train()(image), network.eval()(image)
    assert [tuple(logits.shape) for logits in trained.auxiliary] == [(1, 1, 72, 72)] * 3
    assert judged.auxiliary is None


def test_the_outputs_of_deep_supervision_count_less_from_one_to_the_next() -> None:
    part = SegmentationPart({"bce": 1.0})
    truth = torch.ones(1, 1, 4, 4)
    final, *others = (torch.full((1, 1, 4, 4), value) for value in (0.0, 1.0, 2.0))
    outputs = Outputs(masks=final, auxiliary=tuple(others))
    loss = SegmentationLoss({"bce": 1.0})
    expected = loss(final, truth) + loss(others[0], truth) / 2 + loss(others[1], truth) / 3
    assert part.total_loss(outputs, truth, "train").item() == pytest.approx(expected.item())
    assert part.total_loss(outputs, truth, "val").item() == pytest.approx(loss(final, truth).item())


def test_attention_weighs_places_and_channels() -> None:
    torch.manual_seed(0)
    features = torch.rand(2, 64, 6, 5)
    for block in (CoordinateAttention(64).eval(), CBAM(64).eval()):
        weights = block(features) / features
        assert weights.shape == features.shape and weights.min() > 0 and weights.max() < 1
    weights = CoordinateAttention(64).eval()(features) / features
    rows = weights[:, :, :, :1] / weights[:, :, :1, :1]  # a row's weight times a column's
    assert torch.allclose(weights, rows * weights[:, :, :1, :], atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_multi_feature_network_keeps_the_resnets_layers(backbone: str) -> None:
    network = build("mffmt", backbone=backbone).network.network
    deepest = {"resnet18": 512, "resnet50": 2048}[backbone]
    assert network.encoder.channels[-1] == deepest
    assert parameters(network.encoder) == {"resnet18": 11_176_512, "resnet50": 23_508_032}[backbone]


@pytest.mark.parametrize(
    ("name", "wanted", "settings", "message"),
    [
        ("mffmt", BOTH, {"backbone": "mobilenetv1_100"}, r"model\.backbone=mobilenetv1_100: mffmt takes a ResNet"),
        ("mffmt", Wanted(3, False, 64), {}, r"gives classes with masks, and the task wants classes alone"),
        ("fused_encoders", Wanted(3, False, 64), {"backbones": ["resnet18"]}, r"expected two timm models or more"),
        (
            "fused_encoders",
            Wanted(3, False, 64),
            {"backbones": ["resnet18", "resnet5"]},
            r"resnet5: not a model",
        ),
        (
            "fused_encoders",
            Wanted(3, False, 32),
            {"backbones": ["resnet18", "inception_v3"]},
            r"size=32 does not suit",
        ),
        ("aumente_nnunet", Wanted(3, True, 32), {}, r"data\.image_size=32 does not suit aumente_nnunet: .*spatial"),
        ("aumente_unetpp", BOTH, {"weights": "imagenet"}, r"aumente_unetpp has no pretrained weights"),
        (
            "aumente_unetpp",
            BOTH,
            {"backbone": "resnet18"},
            r"model\.backbone: unknown key; known keys of aum",
        ),
    ],
)
def test_settings_that_are_refused(name: str, wanted: Wanted, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(name, wanted, **settings)
    assert "\n" not in str(caught.value)
