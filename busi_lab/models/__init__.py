"""Networks: from normalised images to logits. A network of one's own needs the names here, and no others."""

from busi_lab.config import NetworkSettings
from busi_lab.models.inputs import PaddedNetwork, match_channels
from busi_lab.models.interface import BuiltModel, Outputs, Wanted, answering
from busi_lab.models.pretrained import create_timm_model
from busi_lab.models.registry import build_network, find_network, network_settings, register

__all__ = [
    "BuiltModel",
    "NetworkSettings",
    "Outputs",
    "PaddedNetwork",
    "Wanted",
    "answering",
    "build_network",
    "create_timm_model",
    "find_network",
    "match_channels",
    "network_settings",
    "register",
]
