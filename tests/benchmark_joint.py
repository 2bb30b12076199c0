"""One encoder or two: time of the joint network against classifier and U-Net, measured in turns.

Run alone on the machine: ``python -m tests.benchmark_joint [SIZE] [BATCH]``. An ideal shared encoder takes
(E + D) / (2 E + D) of the two networks' time, with E for the encoder and D for the decoder.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from busi_lab.models import Wanted, build_network, network_settings

ROUNDS = 9


def main(size: int, batch: int) -> None:
    mobilenet, published = (network_settings({"name": name, "weights": "none"}) for name in ("timm", "mobilenet_unet"))
    classifier = build_network(mobilenet, Wanted(3, False, size)).network
    unet = build_network(published, Wanted(None, True, size)).network
    joint = build_network(published, Wanted(3, True, size)).network
    networks = {"classifier": classifier, "U-Net": unet, "joint": joint, "encoder": unet.network.encoder}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for network in networks.values():
        network.to(device, memory_format=torch.channels_last)
    for phase, images in (("forward, one scan", 1), (f"training step, batch {batch}", batch)):
        scans = torch.randn(images, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(ROUNDS):
            for name, network in networks.items():
                times[name].append(_time(network, scans, training=images > 1))
        median = {name: 1e3 * statistics.median(values[2:]) for name, values in times.items()}
        both = median["classifier"] + median["U-Net"]
        decoder = median["U-Net"] - median["encoder"]
        ideal = (median["encoder"] + decoder) / (2 * median["encoder"] + decoder)
        listed = ", ".join(f"{name} {value:.1f} ms" for name, value in median.items())
        print(f"{phase}, {size} px, {device}: {listed}")
        print(f"  joint / (classifier + U-Net) = {median['joint'] / both:.2f}; ideal {ideal:.2f}")


def _time(network: Callable[..., object], scans: torch.Tensor, training: bool) -> float:
    network.train(training)  # type: ignore[attr-defined]
    clock = time.perf_counter()
    with torch.set_grad_enabled(training):
        outputs = network(scans)
        if training:
            parts = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)  # type: ignore[call-overload]
            sum(part.float().mean() for part in parts if part is not None).backward()  # type: ignore[union-attr]
    if scans.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - clock


if __name__ == "__main__":
    given = [int(value) for value in sys.argv[1:]]
    main(*(given + [256, 8][len(given) :]))
