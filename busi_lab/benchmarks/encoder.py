"""One encoder or two: the joint network's time beside that of classifier and U-Net.

An ideal shared encoder takes (E + D) / (2 E + D) of the two networks' time, with E for the encoder and D for the
decoder.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from busi_lab.bench_record import Figure
from busi_lab.benchmarks.settings import Settings
from busi_lab.models import Outputs, Wanted, build_network, network_settings

_SIZE = 128  # pixels, unless another is given
_BATCH = 8


def measure(settings: Settings) -> Iterator[Figure]:
    """Milliseconds of each network and their ratio, for one scan forward and for a training step."""
    torch.set_num_threads(settings.threads)
    size = settings.image_size or _SIZE
    mobilenet, published = (network_settings({"name": name, "weights": "none"}) for name in ("timm", "mobilenet_unet"))
    unet = build_network(published, Wanted(None, True, size)).network
    networks: dict[str, nn.Module] = {
        "classifier": build_network(mobilenet, Wanted(3, False, size)).network,
        "U-Net": unet,
        "joint": build_network(published, Wanted(3, True, size)).network,
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for network in networks.values():
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for phase, images in (("one scan", 1), (f"training step of {_BATCH}", _BATCH)):
        scans = torch.randn(images, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(settings.rounds + 1):
            for name, network in networks.items():
                times[name].append(1e3 * _time(network, scans, training=images > 1))
        for name, found in times.items():
            yield Figure("encoder", f"{name}, {phase}, {size} px", "ms", tuple(found[1:]))
        triples = zip(times["joint"], times["classifier"], times["U-Net"], strict=True)
        ratios = tuple(joint / (classifier + other) for joint, classifier, other in triples)[1:]
        yield Figure("encoder", f"joint / (classifier + U-Net), {phase}, {size} px", "ratio", ratios)


def _time(network: nn.Module, scans: Tensor, training: bool) -> float:
    network.train(training)
    clock = time.perf_counter()
    with torch.set_grad_enabled(training):
        outputs: Outputs = network(scans)
        if training:
            parts: list[Any] = [part for part in (outputs.classes, outputs.masks) if part is not None]
            sum(part.float().mean() for part in parts).backward()
    if scans.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - clock
