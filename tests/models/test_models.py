"""Networks, and where their weights come from."""

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Outputs, PaddedNetwork, Wanted, build_network, network_settings, pretrained
from busi_lab.models.custom_cnn import CustomCNN
from busi_lab.models.mobilenet_unet import MobileNetEncoder, MobileNetUNet


def build(name: str = "timm", image_size: int = 64, **model: object) -> Any:
    return built(name, Wanted(3, False, image_size), **model)


def segmenter(name: str = "mobilenet_unet", num_classes: int | None = None, image_size: int = 64, **model: Any) -> Any:
    return built(name, Wanted(num_classes, True, image_size), **model)


def built(name: str, wanted: Wanted, **model: object) -> BuiltModel:
    return build_network(network_settings({"name": name, "weights": "none", **model}), wanted)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_reachable", lambda address: False)
    monkeypatch.delenv("BUSI_WEIGHTS", raising=False)


def test_custom_cnn_has_the_published_layers() -> None:
    model = CustomCNN(image_size=224)
    # 224 -> 222 -> 111 -> 109 -> 54 -> 52 -> 26; weights and biases layer by layer
    convolutions = (3 * 9 * 32 + 32) + (32 * 9 * 64 + 64) + (64 * 9 * 128 + 128)
    dense = (128 * 26 * 26 * 512 + 512) + (512 * 256 + 256) + (256 * 3 + 3)
    assert sum(parameter.numel() for parameter in model.parameters()) == convolutions + dense
    assert model(torch.zeros(2, 3, 224, 224)).classes.shape == (2, 3)


def test_custom_cnn_needs_22_pixels() -> None:
    assert CustomCNN(image_size=22)(torch.zeros(1, 3, 22, 22)).classes.shape == (1, 3)
    with pytest.raises(UserError, match="at least 22"):
        CustomCNN(image_size=21)


@pytest.mark.parametrize(("backbone", "size"), [("mobilenetv1_100", 64), ("inception_v3", 96), ("resnet18", 64)])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_timm_models_take_both_channel_counts(backbone: str, size: int, in_chans: int) -> None:
    built = build(backbone=backbone, image_size=size, in_chans=in_chans)
    built.network.eval()
    assert built.network(torch.zeros(2, in_chans, size, size)).classes.shape == (2, 3)
    assert len(built.mean) == len(built.std) == in_chans


def test_normalisation_is_the_models_own() -> None:
    assert build().mean == (0.5, 0.5, 0.5)  # MobileNetV1, inception_v3: TensorFlow's scaling
    assert build(backbone="resnet18").mean == (0.485, 0.456, 0.406)
    cnn = build("custom_cnn")
    assert (cnn.mean, cnn.std) == ((0.0,) * 3, (1.0,) * 3)  # the paper's division by 255


def test_heads_of_vgg_hold_its_dense_layers() -> None:
    with torch.device("meta"):  # of its 130 million weights only the number is asked
        built = build(backbone="vgg11", image_size=32)
    heads = sum(p.numel() for head in built.heads for p in head.parameters())
    convolutions = sum(p.numel() for p in built.network.features.parameters())
    assert heads + convolutions == sum(p.numel() for p in built.network.parameters())


def test_weights_from_the_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = timm.create_model("mobilenetv1_100")
    save_file(source.state_dict(), tmp_path / "mobilenetv1_100.safetensors")
    monkeypatch.setenv("BUSI_WEIGHTS", str(tmp_path))
    loaded = build(weights="imagenet").network.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(loaded[name], value), name
    assert loaded["classifier.weight"].shape == (3, 1024)
    one = build(weights="imagenet", in_chans=1).network.state_dict()
    assert torch.allclose(one["conv_stem.weight"], source.conv_stem.weight.sum(1, keepdim=True))


def test_weights_with_another_head_and_half_precision(tmp_path: Path) -> None:
    source = timm.create_model("mobilenetv1_100", num_classes=5)
    torch.save({name: value.half() for name, value in source.state_dict().items()}, tmp_path / "five.pth")
    loaded = build(weights=str(tmp_path / "five.pth")).network
    assert loaded.conv_stem.weight.dtype == torch.float32
    assert torch.allclose(loaded.conv_stem.weight, source.conv_stem.weight, atol=1e-3)


@pytest.mark.skipif("BUSI_WEIGHTS" not in os.environ, reason="needs ImageNet weights below BUSI_WEIGHTS")
@pytest.mark.parametrize("backbone", ["mobilenetv1_100", "mobilenetv2_100"])
def test_real_imagenet_weights_load(backbone: str) -> None:
    pretrained_net, random_net = (build(backbone=backbone, weights=w).network for w in ("imagenet", "none"))
    assert not torch.allclose(pretrained_net.conv_stem.weight, random_net.conv_stem.weight, atol=1e-2)
    assert pretrained_net.bn1.running_var.std() > 0  # statistics, not their initial ones


def test_unreachable_hub_is_an_error_that_says_what_to_do(no_hub: None) -> None:
    with pytest.raises(
        UserError, match=r"resnet18 cannot be had.*BUSI_WEIGHTS/resnet18\.safetensors.*model\.weights=none"
    ):
        build(backbone="resnet18", weights="imagenet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a weight file"),
        (b"some text, no tensors", "not a weight file"),
        (None, "does not fit mobilenetv1_100"),
    ],
)
def test_foreign_weight_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "weights.safetensors"
    if content is None:
        save_file(timm.create_model("mobilenetv2_050").state_dict(), path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        build(weights=str(path))


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a weight file"):
        build(weights=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet5"}, "not a model of timm"),
        ({"backbone": None}, r"model\.backbone: .*'None'"),
        ({"weights": "/nowhere/weights.pth"}, "no such file"),
        ({"name": "custom_cnn", "weights": "imagenet"}, "no pretrained weights"),
        ({"backbone": "inception_v3", "image_size": 64}, "image_size=64 does not suit inception_v3"),
    ],
)
def test_wrong_model_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**changes)


def test_the_published_unet_has_the_named_taps() -> None:
    encoder = MobileNetEncoder(timm.create_model("mobilenetv1_100"))
    taps = encoder(torch.zeros(1, 3, 256, 256))
    assert [tuple(tap.shape[1:]) for tap in taps] == [
        (32, 128, 128),
        (128, 64, 64),
        (256, 32, 32),
        (512, 16, 16),
        (1024, 8, 8),
    ]
    assert all(tap.min() >= 0 for tap in taps)  # behind their activations


def test_the_published_unet_ends_with_32_filters_and_one_channel() -> None:
    network = MobileNetUNet(MobileNetEncoder(timm.create_model("mobilenetv1_100")))
    ups = network.decoder.ups
    assert all(isinstance(up[0], torch.nn.ConvTranspose2d) for up in ups)
    assert [up[0].out_channels for up in ups] == [512, 256, 128, 64, 32]
    assert [tuple(align.kernel_size) for align in network.decoder.aligned] == [(1, 1)] * 4
    assert network(torch.zeros(2, 3, 256, 256)).masks.shape == (2, 1, 256, 256)


def test_a_narrow_decoder_has_the_same_encoder_and_a_quarter_of_the_work() -> None:
    wide, narrow = (segmenter(decoder_channels=channels, num_classes=3) for channels in (None, [128, 64, 32, 16, 16]))
    work = []
    for built in (wide, narrow):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            built.network.eval()(torch.zeros(1, 3, 64, 64))
        work.append(counter.get_total_flops())
    assert work[1] / work[0] == pytest.approx(1.066 / 3.696, rel=0.01)
    encoders = [built.network.network.encoder.state_dict() for built in (wide, narrow)]
    assert {name: value.shape for name, value in encoders[0].items()} == {k: v.shape for k, v in encoders[1].items()}
    with pytest.raises(UserError, match=r"decoder_channels=\[8, 4\]: expected null or five numbers"):
        segmenter(decoder_channels=[8, 4])


@pytest.mark.parametrize("size", [64, 75, 100])
def test_images_of_any_size_get_logits_of_that_size(size: int) -> None:
    for built in (segmenter(image_size=size), smp("FPN", "tu-mobilenetv2_100", image_size=size)):
        assert built.network.eval()(torch.zeros(2, 3, size, size)).masks.shape == (2, 1, size, size)


def smp(arch: str, encoder: str, **more: Any) -> Any:
    return segmenter("smp", arch=arch, encoder=encoder, **more)


def test_padding_repeats_edges_and_is_cut_off() -> None:
    seen = []

    def network(image: torch.Tensor) -> Outputs:
        seen.append(image)
        return Outputs(masks=image)

    image = torch.arange(40 * 33, dtype=torch.float32).view(1, 1, 40, 33)
    padded = PaddedNetwork(network)  # type: ignore[arg-type]
    assert torch.equal(padded(image).masks, image)
    assert seen[0].shape == (1, 1, 64, 64)
    assert torch.equal(seen[0][0, 0, :40, 33], image[0, 0, :, 32])


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("Unet", "tu-mobilenetv1_100"), ("UnetPlusPlus", "mobilenet_v2"), ("DeepLabV3Plus", "tu-resnet18")],
)
def test_architectures_and_encoders_by_name(arch: str, encoder: str) -> None:
    built = smp(arch, encoder, num_classes=3, in_chans=1)
    outputs = built.network.eval()(torch.zeros(2, 1, 64, 64))
    assert (outputs.masks.shape, outputs.classes.shape) == ((2, 1, 64, 64), (2, 3))
    heads = sum(p.numel() for head in built.heads for p in head.parameters())
    encoder_size = sum(p.numel() for p in built.network.network.encoder.parameters())
    assert heads + encoder_size == sum(p.numel() for p in built.network.parameters())


def test_normalisation_is_the_encoders_own() -> None:
    assert segmenter().mean == (0.5, 0.5, 0.5)
    assert smp("Unet", "tu-mobilenetv1_100").mean == (0.5, 0.5, 0.5)
    assert smp("Unet", "tu-mobilenetv2_100").mean == (0.485, 0.456, 0.406)
    assert smp("Unet", "mobilenet_v2").std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("name", ["mobilenet_unet", "smp"])
def test_a_weight_folder_fills_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    state = timm.create_model("mobilenetv1_100").state_dict()
    save_file(state, tmp_path / "mobilenetv1_100.safetensors")
    monkeypatch.setenv("BUSI_WEIGHTS", str(tmp_path))
    built = segmenter(name, weights="imagenet").network.network.encoder
    loaded = dict(built.state_dict()) if name == "smp" else {}
    for tensor in ("conv_stem.weight", "bn1.running_var", "blocks.4.1.conv_pw.weight"):
        ours = loaded[f"model.{tensor}"] if loaded else _in_taps(built, tensor)
        assert torch.equal(ours, state[tensor]), tensor


def _in_taps(encoder: Any, tensor: str) -> torch.Tensor:
    first, rest = tensor.split(".", 1)
    if first == "blocks":
        return encoder.blocks.state_dict()[rest]  # type: ignore[no-any-return]
    return encoder.stem.state_dict()[f"{0 if first == 'conv_stem' else 1}.{rest}"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("arch", "encoder", "message"),
    [
        ("Unett", "tu-mobilenetv1_100", r"model\.arch=Unett: not an architecture.*known: Unet, UnetPlusPlus"),
        ("Unet", "tu-mobilnet", r"model\.encoder=tu-mobilnet: timm .* knows no mobilnet; similar: tu-mobil"),
        ("Unet", "mobilenetv2", r"model\.encoder=mobilenetv2: smp .* similar: mobilenet_v2"),
        ("Unet", "tu-vit_tiny_patch16_224", "cannot be built"),
    ],
)
def test_networks_that_do_not_exist(arch: str, encoder: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        smp(arch, encoder)
    assert "\n" not in str(caught.value)


def test_encoder_weights_out_of_reach(no_hub: None) -> None:
    with pytest.raises(UserError, match=r"ImageNet weights of model\.encoder=mobilenet_v2 cannot be had"):
        smp("Unet", "mobilenet_v2", weights="imagenet")
    with pytest.raises(UserError, match="ImageNet weights of mobilenetv2_100 cannot be had"):
        smp("Unet", "tu-mobilenetv2_100", weights="imagenet")
