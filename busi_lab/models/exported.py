"""The network of an exported run, which another library than torch applies."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.exported.sessions import Runtime, Session, open_session
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.registry import register


@dataclass
class ExportedSettings(NetworkSettings):
    """``file`` is the network, ``of`` the name of that which was exported, the rest as :class:`Runtime` has it."""

    weights: str = "none"
    in_chans: int = 1
    file: str = ""
    of: str = ""
    backend: str = "auto"
    threads: int | None = None
    precision: str = "32"

    @property
    def label(self) -> str:
        """The network that was exported."""
        return self.of


class Exported(nn.Module):
    """A network without gradients, on the CPU.

    Args:
        session: applies it.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def forward(self, image: Tensor) -> Outputs:
        """Logits of scans float ``[B, 1, S, S]`` from 0 to 1, of which the network gets the gray levels."""
        levels = (image * 255).round().to(torch.uint8).cpu().contiguous().numpy()
        answers = self.session.run(levels)
        found = {name: torch.from_numpy(logits).to(image.device) for name, logits in answers.items()}
        return Outputs(found.get("classes"), found.get("masks"), class_maps=found.get("class_maps"))


@register("exported", ExportedSettings, gives=("classes", "masks", "both"), trained=False)
def build(settings: ExportedSettings, wanted: Wanted) -> BuiltModel:
    """Load it.

    Raises:
        UserError: as :func:`open_session`.
    """
    runtime = Runtime(settings.backend, settings.threads, settings.precision)
    return BuiltModel(Exported(open_session(Path(settings.file), runtime)), (), (0.0,), (1.0,))
