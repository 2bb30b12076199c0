"""The augmentation sets that users choose from, and the published one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "augment"
PAPER = {
    "rotation": 5.0,
    "shift": 0.1,
    "shear": 0.05,
    "zoom": 0.05,
    "brightness": [1.0, 1.4],
    "horizontal_flip": True,
}


def settings(name: str) -> Mapping[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))  # type: ignore[return-value]
