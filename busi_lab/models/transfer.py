"""Initial weights from a file, a checkpoint or a finished run: what fits is taken, and it is said what was not.

Names are compared from some module of the source and some module of the network on, whichever two share most tensors
of equal shape: so a classifier fills the encoder of a U-Net and the reverse, and prefixes such as ``module.``,
``encoder.`` or ``backbone.`` do not matter. A first layer for another number of channels is summed or spread, as timm
does it.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from busi_lab.classes import BUSI
from busi_lab.errors import UserError, one_line
from busi_lab.models.interface import BuiltModel, Wanted
from busi_lab.run_directory import BEST_CHECKPOINT
from busi_lab.summary import SUMMARY, InitialWeights, read_summary

_LEAST = 0.5  # of the backbone's tensors that must be found
_DEPTH = 4  # modules into which a prefix may reach
_COVERS = 0.2  # of all tensors, at least, lie below a module whose path is tried as a prefix
_INSIDE = ("state_dict", "model_state_dict", "model", "net")  # where other programs keep their tensors
_ALIASES = ((re.compile(r"(^|_)stem_0_"), r"\1conv_stem_"), (re.compile(r"(^|_)stem_1_"), r"\1bn1_"))
# timm's MobileNets and the encoder of our U-Net, which has the same two layers


@dataclass(frozen=True)
class Source:
    """Tensors to start from.

    Attributes:
        path: of their file.
        tensors: by name.
        classes: names of the classes of a run's head; empty where they are not known.
        data: what they were trained on, in words; None where it is not known.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]
    data: str | None


def open_source(weights: str) -> Source:
    """Read what ``model.weights`` names: a run directory, a checkpoint, or a file of tensors.

    Nothing in a file is executed.

    Raises:
        UserError: there is no such file, or it holds no tensors by name.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        if not (path / BEST_CHECKPOINT).is_file():
            raise UserError(
                f"model.weights={weights}: expected a finished run with {BEST_CHECKPOINT}; found a folder without it"
            )
        path = path / BEST_CHECKPOINT
    if not path.is_file():
        raise UserError(
            f"model.weights={weights}: expected imagenet, none, a run directory or an existing file; found no such file"
        )
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except Exception as error:  # safetensors, zipfile, pickle and torch each raise their own
        raise UserError(
            f"model.weights={path}: not a weight file ({one_line(error)[:200]}); expected a run directory, "
            ".safetensors, or a state dict of tensors that torch has saved"
        ) from None
    classes = _classes_of(content)
    for name in _INSIDE:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)} if content else {}
    if not tensors:
        raise UserError(f"model.weights={path}: not a weight file: it holds no tensors by name")
    return Source(path, tensors, classes, _data_of(path))


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _classes_of(content: Any) -> tuple[str, ...]:
    """The classes of a checkpoint of ours, BUSI's where it names none; empty for any other file."""
    parameters = content.get("hyper_parameters") if isinstance(content, dict) and "schema" in content else None
    if not isinstance(parameters, dict):
        return ()
    return tuple((parameters.get("roles") or {}).get("names", BUSI.names))


def _data_of(path: Path) -> str | None:
    """Name and digest of the data of the run that a checkpoint belongs to."""
    folder = parent_run(path)
    if folder is None:
        return None
    try:
        data = read_summary(folder).data
    except UserError:
        return None
    return f"{data.name} ({data.digest})"


def parent_run(path: Path) -> Path | None:
    """The run directory that holds a checkpoint; None for any other file."""
    folder = path.parent.parent
    return folder if path.parent.name == Path(BEST_CHECKPOINT).parent.name and (folder / SUMMARY).is_file() else None


def take_weights(built: BuiltModel, wanted: Wanted, source: Source, label: str, data: str | None) -> InitialWeights:
    """Copy what fits into a network.

    The last layer of a run that has learnt other classes is left out.

    Args:
        built: changed in place.
        wanted: by the task; names the classes.
        source: of the tensors.
        label: the network in a word, for errors.
        data: what the source was trained on, as the user says it.

    Raises:
        UserError: less than half of the backbone's tensors are found.
    """
    network = built.network
    own = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    heads = {name for name, module in network.named_modules() if any(module is head for head in built.heads)}
    backbone = {name for name in own if not any(name.startswith(f"{head}.") for head in heads)}
    matched = _match(own, source.tensors)
    if source.classes and wanted.class_names and source.classes != wanted.class_names:
        answers = {
            f"{name}.{kind}"
            for name, module in network.named_modules()
            if any(name == head or name.startswith(f"{head}.") for head in heads)
            and getattr(module, "out_features", getattr(module, "out_channels", None)) == wanted.classes
            for kind in ("weight", "bias")
        }
        matched = {name: origin for name, origin in matched.items() if name not in answers}
    found = sum(name in matched for name in backbone)
    if found < _LEAST * len(backbone):
        raise UserError(
            f"model.weights={source.path} does not fit {label}: {found} of {len(backbone)} tensors of its backbone are "
            "there with the same shape; expected weights of this network, or of one with this backbone"
        )
    with torch.no_grad():
        for name, origin in matched.items():
            own[name].copy_(_adapted(source.tensors[origin], own[name].shape))
    return InitialWeights(
        source=str(source.path.resolve()),
        digest=hashlib.sha256(source.path.read_bytes()).hexdigest()[:16],
        data=data or source.data,
        taken=len(matched),
        tensors=len(own),
        missing=tuple(name for name in own if name not in matched),
    )


def describe_weights(initial: InitialWeights) -> str:
    """What was taken and what was not, in a line."""
    told = f"weights: {initial.taken} of {initial.tensors} tensors taken from {initial.source}"
    if initial.data:
        told += f", trained on {initial.data}"
    if initial.missing:
        roots = Counter(name.rpartition(".")[0] for name in initial.missing)
        named = ", ".join(list(roots)[:4])
        told += f"; new are {len(initial.missing)}: {named}{' and others' if len(roots) > 4 else ''}"
    return told


def _match(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """The network's name -> the source's, for the two prefixes between which most tensors of one shape agree."""
    best: dict[str, str] = {}
    indices = {
        prefix: {_plain(name[len(prefix) :]): name for name in theirs if name.startswith(prefix)}
        for prefix in _prefixes(theirs)
    }
    for ours in _prefixes(own):
        rest = {name: _plain(name[len(ours) :]) for name in own if name.startswith(ours)}
        for index in indices.values():
            found = {
                name: origin
                for name, plain in rest.items()
                if (origin := index.get(plain)) and _adapted(theirs[origin], own[name].shape) is not None
            }
            if len(found) > len(best):
                best = found
    return best


def _prefixes(names: Iterable[str]) -> list[str]:
    """The empty path and those of modules that hold a good part of all tensors, short ones first."""
    every = list(names)
    counts: Counter[str] = Counter()
    for name in every:
        parts = name.split(".")[:-1]
        counts.update({f"{'.'.join(parts[:depth])}." for depth in range(1, min(len(parts), _DEPTH) + 1)})
    return ["", *sorted((path for path, count in counts.items() if count >= _COVERS * len(every)), key=len)]


def _plain(name: str) -> str:
    """A name without what features of timm and our encoders write differently."""
    plain = name.replace(".", "_")
    for pattern, word in _ALIASES:
        plain = pattern.sub(word, plain)
    return plain


def _adapted(tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """A tensor in the wanted shape: as it is, or a first layer for one channel made of one for three, or reversed."""
    if tensor.shape == shape:
        return tensor
    if tensor.dim() != 4 or len(shape) != 4 or tensor.shape[0] != shape[0] or tensor.shape[2:] != shape[2:]:
        return None
    channels = (tensor.shape[1], shape[1])
    if channels == (3, 1):
        return tensor.float().sum(dim=1, keepdim=True).to(tensor.dtype)
    if channels == (1, 3):
        return (tensor.float() / 3).repeat(1, 3, 1, 1).to(tensor.dtype)
    return None
