"""What holds for every network, found by the registry: a new one is tested here without being named."""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from busi_lab.config import NetworkSettings, config_dir
from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Outputs, Wanted, build_network, find_network, network_settings, register
from busi_lab.models.registry import networks_that_give, our_networks
from tests.extensions import install, recipe

SIZE = 72  # no multiple of what networks halve it by
BUILDS = [(name, outputs) for name in our_networks() for outputs in find_network(name).gives]
WANTED = {
    "classes": Wanted(3, False, SIZE),
    "masks": Wanted(None, True, SIZE),
    "both": Wanted(3, True, SIZE),
}


def build(name: str, outputs: str, **changes: Any) -> BuiltModel:
    torch.manual_seed(0)
    return build_network(network_settings({"name": name, "weights": "none", **changes}), WANTED[outputs])


@pytest.mark.parametrize(("name", "outputs"), BUILDS)
def test_every_network_gives_what_is_wanted_and_learns(name: str, outputs: str) -> None:
    built = build(name, outputs, in_chans=1, dropout=0.1)
    assert len(built.mean) == len(built.std) == 1
    found = built.network.train()(torch.randn(2, 1, SIZE, SIZE))
    assert isinstance(found, Outputs)
    every = (found.classes, found.masks, *(found.auxiliary or ()))
    shapes = [None if logits is None else tuple(logits.shape) for logits in every[:2]]
    assert all(logits.shape == (2, 1, SIZE, SIZE) for logits in found.auxiliary or ())
    assert shapes == [None if outputs == "masks" else (2, 3), None if outputs == "classes" else (2, 1, SIZE, SIZE)]
    sum(logits.square().mean() for logits in every if logits is not None).backward()  # type: ignore[union-attr]
    without = [key for key, value in built.network.named_parameters() if value.requires_grad and value.grad is None]
    assert not without
    heads = {parameter for head in built.heads for parameter in head.parameters()}
    assert heads and heads < set(built.network.parameters())


@pytest.mark.parametrize(("name", "outputs"), BUILDS)
def test_the_weights_of_every_network_make_another_the_same(name: str, outputs: str) -> None:
    first = build(name, outputs).network.eval()
    torch.manual_seed(1)
    second = build_network(network_settings({"name": name, "weights": "none"}), WANTED[outputs]).network.eval()
    second.load_state_dict(first.state_dict())
    image = torch.randn(1, network_settings({"name": name}).in_chans, SIZE, SIZE)
    with torch.no_grad():
        for ours, theirs, copied in zip(first(image), second(image), copy.deepcopy(first)(image), strict=True):
            assert ours is theirs is copied or (torch.equal(ours, theirs) and torch.equal(ours, copied))


@pytest.mark.parametrize("name", our_networks())
def test_the_file_of_every_network_has_the_defaults_of_its_settings(name: str) -> None:
    path = config_dir() / "model" / f"{name}.yaml"
    assert path.is_file(), f"write {path}"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content == asdict(network_settings({"name": name}))
    again = yaml.safe_load(yaml.safe_dump(asdict(network_settings(content))))
    assert network_settings(again) == network_settings(content)


def test_a_key_of_another_network_is_unknown_unless_it_is_null() -> None:
    with pytest.raises(UserError, match=r"model\.backbon: unknown key; did you mean backbone\? known keys of timm: "):
        network_settings({"name": "timm", "backbon": "resnet18"})
    with pytest.raises(UserError, match=r"model\.backbone: unknown key; known keys of custom_cnn: name, weights, "):
        network_settings({"name": "custom_cnn", "backbone": "resnet18"})
    older = {"name": "custom_cnn", "backbone": None, "arch": None, "encoder": None, "dropout": 0.5}
    assert network_settings(older) == network_settings({"name": "custom_cnn"})


def test_a_task_names_the_networks_that_fit_it() -> None:
    with pytest.raises(UserError) as caught:
        build("timm", "masks")
    assert str(caught.value) == (
        "model.name=timm: gives classes alone, and the task wants masks alone; set "
        f"{' or '.join(f'model={name}' for name in networks_that_give('masks'))} for this task, or choose another task="
    )
    with pytest.raises(UserError, match=r"gives masks alone or classes with masks.* set .*model=timm"):
        build("smp", "classes")


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"model\.name=time: no such network; did you mean timm\? choices: "):
        network_settings({"name": "time"})


def test_a_network_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = recipe("python").replace('"small"', '"clinic_net"')
    install(tmp_path, monkeypatch, "hospital_net", source, "busi_lab.models", "clinic_net")
    assert build("clinic_net", "classes", width=8.0).network.head.in_features == 8
    with pytest.raises(UserError, match=r"model\.widht: unknown key; did you mean width\? known keys of clinic_net"):
        network_settings({"name": "clinic_net", "widht": 3})
    with pytest.raises(UserError, match=r"gives classes alone.*set .*model=smp"):
        build("clinic_net", "masks")


def test_a_broken_package_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "broken_net", "import nothing_of_this_name", "busi_lab.models", "broken")
    with pytest.raises(UserError) as caught:
        network_settings({"name": "broken"})
    assert str(caught.value) == (
        "broken of the package broken-net (entry point broken_net in busi_lab.models) cannot be loaded "
        "(ModuleNotFoundError: No module named 'nothing_of_this_name'); mend or remove that package"
    )
    with pytest.raises(UserError, match=r"set .*model=smp.* for this task"):
        build("timm", "masks")  # what is broken is no choice, and does not hide the others
    install(tmp_path, monkeypatch, "empty_net", "", "busi_lab.models", "empty")
    with pytest.raises(UserError, match=r"entry point of busi_lab\.models registers no network of that name"):
        network_settings({"name": "empty"})


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match=r"network timm of .*: the name is taken by busi_lab"):
        register("timm", NetworkSettings, gives=("classes",))(lambda settings, wanted: None)  # type: ignore[arg-type,return-value]


@dataclass
class Odd(NetworkSettings):
    """A network that does not keep its word."""


def test_a_network_that_answers_with_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("busi_lab.models.registry._NETWORKS", {})
    our_networks.cache_clear()

    @register("odd", Odd, gives=("classes",))
    def odd(settings: Odd, wanted: Wanted) -> BuiltModel:
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 3))
        return BuiltModel(network, (network[1],), (0.0,) * 3, (1.0,) * 3)

    with pytest.raises(UserError) as caught:
        build("odd", "classes")
    our_networks.cache_clear()
    assert str(caught.value) == (
        "model.name=odd: expected Outputs with {'classes': [1, 3], 'masks': None} for an image of 72 pixels, found "
        "{'Tensor': [1, 3]}; mend the network's forward"
    )
