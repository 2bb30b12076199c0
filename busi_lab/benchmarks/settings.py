"""What is measured, and how long."""

import json
from dataclasses import asdict, dataclass
from typing import Any

PARTS = ("loop", "start", "loader", "predict", "encoder", "near-copies", "compare")


@dataclass(frozen=True)
class Settings:
    """The arguments of ``busi-bench``.

    Attributes:
        threads: that torch and the backends may use.
        rounds: of interleaved measurements; the first one of each is a warm-up and not counted.
        round_images: of a round of a training loop.
        image_size: of the loop, pixels; None for that of each experiment.
        tasks: which loops, of ``classification``, ``segmentation`` and ``joint``.
        batch_sizes: of the loop.
        precisions: of the loop.
        keras: measure the paper's own stack beside the loop.
        runs: directories of finished or exported runs to predict with; none for untrained ones.
        scans: folder of scans to predict, and of the images of ``near-copies``; None for phantoms.
        count: scans that are predicted.
        images: of the large set of ``loader`` and, without ``scans``, of ``near-copies``.
        many: runs that are compared.
    """

    threads: int
    rounds: int = 7
    round_images: int = 128
    image_size: int | None = None
    tasks: tuple[str, ...] = ("classification", "segmentation", "joint")
    batch_sizes: tuple[int, ...] = (4, 16)
    precisions: tuple[str, ...] = ("32-true", "bf16-mixed")
    keras: bool = False
    runs: tuple[str, ...] = ()
    scans: str | None = None
    count: int = 200
    images: int = 10_000
    many: int = 1000

    def to_text(self) -> str:
        """As an argument of a process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Settings":
        """What :meth:`to_text` has written."""
        content: dict[str, Any] = json.loads(text)
        for key, value in content.items():
            content[key] = tuple(value) if isinstance(value, list) else value
        return cls(**content)
