"""Initial weights from files, checkpoints and runs: what is taken, what is not, and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Wanted, build_network, network_settings
from busi_lab.models.transfer import describe_weights
from busi_lab.summary import InitialWeights, Summary, read_summary, write_summary

SMALL = "mobilenetv3_small_050"
NAMES = ("benign", "malignant", "normal")


def build(weights: str | Path = "none", name: str = "timm", gives: str = "classes", **model: Any) -> BuiltModel:
    wanted = {"classes": (3, False), "masks": (None, True), "both": (3, True)}[gives]
    settings = {"name": name, "weights": str(weights), **({"backbone": SMALL} if name == "timm" else {}), **model}
    return build_network(network_settings(settings), Wanted(*wanted, 64, NAMES if wanted[0] else ()))


def taken(built: BuiltModel) -> InitialWeights:
    assert built.initial is not None
    return built.initial


def save(tensors: Mapping[str, Tensor], path: Path) -> Path:
    save_file({name: value.clone() for name, value in tensors.items()}, path)
    return path


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return dict(timm.create_model(SMALL, num_classes=7).state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.encoder.", "module.net.features.extractor."])
def test_prefixes_do_not_matter_and_another_head_is_left(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    built = build(save({f"{prefix}{name}": value for name, value in state.items()}, tmp_path / "w.safetensors"))
    own = built.network.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own if not name.startswith("classifier"))
    assert taken(built).missing == ("classifier.weight", "classifier.bias")
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    assert (taken(built).taken, taken(built).tensors) == (len(counted) - 2, len(counted))
    assert describe_weights(taken(built)).endswith("w.safetensors; new are 2: classifier")


@pytest.mark.parametrize("inside", ["state_dict", "model"])
def test_checkpoints_of_other_programs_are_opened(tmp_path: Path, state: dict[str, Tensor], inside: str) -> None:
    torch.save({inside: state, "epoch": 3}, tmp_path / "w.pth")
    assert len(taken(build(tmp_path / "w.pth")).missing) == 2


@pytest.mark.slow
def test_a_backbone_without_its_dense_layers_is_taken(tmp_path: Path) -> None:
    state = {name: value for name, value in timm.create_model("vgg11").state_dict().items() if "features" in name}
    missing = taken(build(save(state, tmp_path / "vgg.safetensors"), backbone="vgg11")).missing
    assert {name.split(".")[0] for name in missing} == {"pre_logits", "head"}


@pytest.mark.parametrize(
    ("name", "further"),
    [("mobilenet_unet", {}), ("smp", {"encoder": "tu-mobilenetv1_100"})],
)
def test_classifiers_fill_encoders_and_the_reverse(tmp_path: Path, name: str, further: dict[str, str]) -> None:
    whole = build(backbone="mobilenetv1_100")
    path = save(whole.network.state_dict(), tmp_path / "classifier.safetensors")
    unet = build(path, name, "masks", **further)
    assert all("encoder" not in missing for missing in taken(unet).missing)
    back = build(save(unet.network.state_dict(), tmp_path / "unet.safetensors"), backbone="mobilenetv1_100")
    own, first = back.network.state_dict(), whole.network.state_dict()
    assert {name.split(".")[0] for name in taken(back).missing} <= {"classifier", "conv_head", "bn2"}
    assert all(torch.equal(own[name], first[name]) for name in own if name not in taken(back).missing)


@pytest.mark.slow
def test_features_of_timm_write_names_with_underscores(tmp_path: Path) -> None:
    path = save(timm.create_model("vgg11").state_dict(), tmp_path / "vgg.safetensors")
    missing = taken(build(path, "smp", "masks", encoder="tu-vgg11")).missing
    assert missing and all("encoder" not in name for name in missing)


def test_first_layers_are_summed_and_spread(tmp_path: Path, state: dict[str, Tensor]) -> None:
    one = build(save(state, tmp_path / "three.safetensors"), in_chans=1)
    weight = one.network.state_dict()["conv_stem.weight"]
    assert torch.allclose(weight, state["conv_stem.weight"].sum(1, keepdim=True))
    three = build(save(one.network.state_dict(), tmp_path / "one.safetensors"))
    assert torch.allclose(three.network.state_dict()["conv_stem.weight"].sum(1, keepdim=True), weight, atol=1e-6)


def test_a_few_tensors_that_are_not_there_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    lost = next(name for name in state if name.startswith("blocks.2") and name.endswith("weight"))
    rest = {name: value for name, value in state.items() if name != lost}
    assert lost in taken(build(save(rest, tmp_path / "part.safetensors"))).missing


def test_weights_of_another_architecture_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match=r"does not fit resnet18: \d+ of 100 tensors of its backbone"):
        build(save(state, tmp_path / "other.safetensors"), backbone="resnet18")
    with pytest.raises(UserError, match="holds no tensors by name"):
        torch.save({"state_dict": {"epoch": 1}}, tmp_path / "none.pth")
        build(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"expected a finished run with checkpoints/best.ckpt"):
        build(tmp_path)


def test_a_run_gives_its_weights_and_what_it_has_learnt_from(trained: Mapping[str, Path]) -> None:
    run = trained["classifier"]
    settings = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]["model"]

    def start(names: tuple[str, ...]) -> InitialWeights:
        return taken(build_network(network_settings({**settings, "weights": str(run)}), Wanted(3, False, 32, names)))

    assert start(NAMES).missing == ()  # the same classes: the head as well
    assert start(("a", "b", "c")).missing == ("head.6.weight", "head.6.bias")
    assert str(start(NAMES).data).startswith("busi (")


def test_what_a_run_started_from_is_read_back(tmp_path: Path) -> None:
    initial = InitialWeights("w.pth", "ab", "cells", 3, 5, ("head.weight",), 2)
    write_summary(tmp_path, Summary("finished", initial=initial))
    assert read_summary(tmp_path).initial == initial
