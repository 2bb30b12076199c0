"""Networks by their names: each is a builder with settings of its own, here or in an installed package."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from busi_lab.checking import checked
from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError
from busi_lab.extensions import installed, load_extension
from busi_lab.models.inputs import check_network, standardize
from busi_lab.models.interface import BuiltModel, Gives, Wanted
from busi_lab.models.pretrained import local_file
from busi_lab.models.transfer import Source, open_source, take_weights
from busi_lab.suggestions import one_of

EXTENSIONS = "busi_lab.models"
"""Group of entry points by which packages bring networks."""

S = TypeVar("S", bound=NetworkSettings)
Builder = Callable[[S, Wanted], BuiltModel]


@dataclass(frozen=True)
class Network:
    """A registered network.

    Attributes:
        name: as ``model.name`` names it.
        settings: a dataclass; its fields are the keys of the group ``model``.
        gives: which logits it can be built for.
        build: builds it.
        trained: False for one that is made of finished runs, so that no configuration chooses it.
    """

    name: str
    settings: type[NetworkSettings]
    gives: tuple[Gives, ...]
    build: Builder[Any]
    trained: bool = True

    @property
    def package(self) -> str:
        """The package that brings it."""
        return self.build.__module__.partition(".")[0]


_NETWORKS: dict[str, Network] = {}


def register(
    name: str, settings: type[S], gives: Iterable[Gives], trained: bool = True
) -> Callable[[Builder[S]], Builder[S]]:
    """Register the function below as the builder of a network.

    Args:
        name: the value of ``model.name``, and the name of its file in ``conf/model``.
        settings: its settings, with the defaults of that file.
        gives: which logits it can be built for: ``classes``, ``masks``, or ``both`` from one encoder.
        trained: whether it can be trained; else it has no file there.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(build: Builder[S]) -> Builder[S]:
        if name in _NETWORKS:
            raise ValueError(f"network {name} of {build.__module__}: the name is taken by {_NETWORKS[name].package}")
        _NETWORKS[name] = Network(name, settings, tuple(gives), build, trained)
        return build

    return decorate


@cache
def our_networks() -> tuple[str, ...]:
    """The names of the networks of this package that can be trained: a file in it is all that they need."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    package = __name__.partition(".")[0]
    return tuple(sorted(name for name, each in _NETWORKS.items() if each.trained and each.package == package))


def find_network(name: str) -> Network:
    """A network by its name: one of ours, else that of an installed package, which is imported now.

    Raises:
        UserError: there is none, or its package is broken.
    """
    if name not in our_networks() and name not in _NETWORKS and load_extension(EXTENSIONS, name) is None:
        known = [*our_networks(), *installed(EXTENSIONS)]
        raise UserError(
            f"{one_of(f'model.name={name}: no such network', name, known, 'choices')}; a network of your own needs its "
            f"package installed here, with an entry point {EXTENSIONS}"
        )
    if name not in _NETWORKS:
        raise UserError(f"model.name={name}: the entry point of {EXTENSIONS} registers no network of that name")
    return _NETWORKS[name]


def network_settings(model: Mapping[str, Any]) -> NetworkSettings:
    """Check the group ``model`` against the settings of the network that ``name`` names, and fill in defaults.

    Keys that the network lacks may be there with null: older configurations hold the keys of all networks.

    Raises:
        UserError: no such network, an unknown key, or a value of another type.
    """
    network = find_network(str(model["name"]))
    known = {item.name for item in fields(network.settings)}
    given = {key: value for key, value in model.items() if key in known or value is not None}
    return checked(network.settings, given, "model", f"known keys of {network.name}")


def build_network(settings: NetworkSettings, wanted: Wanted) -> BuiltModel:
    """Build a network, and try a blank image on it.

    Args:
        settings: as :func:`network_settings` returns them.
        wanted: by the task.

    Raises:
        UserError: the network does not give what is wanted, cannot be built, or cannot take the input.
    """
    network = find_network(settings.name)
    if wanted.outputs not in network.gives:
        fitting = " or ".join(f"model={name}" for name in networks_that_give(wanted.outputs)) or "a network of your own"
        raise UserError(
            f"model.name={network.name}: gives {' or '.join(map(_in_words, network.gives))}, and the task wants "
            f"{_in_words(wanted.outputs)}; set {fitting} for this task, or choose another task="
        )
    source = find_source(settings)
    built = network.build(settings if source is None else replace(settings, weights="none"), wanted)
    if source is not None:
        initial = take_weights(built, wanted, source, settings.label, settings.weights_data)
        built = replace(built, initial=initial)
    if settings.standardize:
        built.network.register_forward_pre_hook(standardize)
    check_network(built, wanted, settings)
    return built


def find_source(settings: NetworkSettings) -> Source | None:
    """The file that ``weights`` stands for, read; None where there is nothing to take or the hub is to be asked.

    Raises:
        UserError: it is no file of tensors.
    """
    if settings.weights == "none":
        return None
    if settings.weights != "imagenet":
        return open_source(settings.weights)
    backbone = settings.timm_backbone
    path = None if backbone is None else local_file(backbone)
    return None if path is None else open_source(str(path))


def networks_that_give(outputs: Gives) -> list[str]:
    """The names of all networks that can be built for these outputs; packages that are broken are passed over."""
    found = []
    for name in (*our_networks(), *installed(EXTENSIONS)):
        try:
            network = find_network(name)
        except UserError:
            continue
        if outputs in network.gives:
            found.append(name)
    return found


def _in_words(outputs: Gives) -> str:
    return "classes with masks" if outputs == "both" else f"{outputs} alone"
