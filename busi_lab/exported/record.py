"""What ``export.json`` says of an exported run beside the run's own summary, and whether the files are those."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError

SCHEMA = 1
EXPORT = "export.json"
"""The summary of an exported run. It has a name of its own, so that no comparison counts a run twice."""

MODELS = {"onnx": "model.onnx", "openvino": "model.xml"}
"""The file of the network, by format; ``openvino`` has its weights in ``model.bin`` beside it."""


@dataclass(frozen=True)
class ExportRecord:
    """A network as a file, from scans ``image`` uint8 ``[N, 1, S, S]`` to logits; None for what is not known.

    Attributes:
        schema: version of this record.
        format: ``onnx`` or ``openvino``.
        int8: whether it was quantised.
        outputs: names of what the network gives, in their order: ``classes`` ``[N, K]``, ``masks`` ``[N, 1, S, S]``
            or ``class_maps`` ``[N, K, h, w]``.
        classes: names of the class logits, in their order; empty without.
        image_size: S, pixels.
        mask_threshold: lesion probability from which on a pixel is lesion.
        task: constructor arguments of the task but for its network.
        run: directory of the run, absolute.
        checkpoint: digest of its weights, sixteen hex digits.
        compared_on: the scans on which logits were compared, in words.
        difference: the largest difference of a logit, in units of ``max(1, |logit|)``; of INT8 that before it.
        quantization: how INT8 was calibrated, and validation figures before and after.
        versions: of the libraries that have written it.
        files: SHA-256 of all other files of the directory, by name.
    """

    schema: int | None = None
    format: str | None = None
    int8: bool = False
    outputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    image_size: int | None = None
    mask_threshold: float | None = None
    task: dict[str, Any] = field(default_factory=dict)
    run: str | None = None
    checkpoint: str | None = None
    compared_on: str | None = None
    difference: float | None = None
    quantization: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def file_digests(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files of a directory, by name.

    Raises:
        UserError: one is missing.
    """
    found = {}
    for name in names:
        digest = hashlib.sha256()
        try:
            with (directory / name).open("rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
        except OSError as error:
            raise UserError(f"{directory / name} cannot be read ({error.strerror}); copy the whole directory") from None
        found[name] = digest.hexdigest()
    return found


def check_export(directory: Path, record: ExportRecord) -> Path:
    """The file of the network of an exported run, when all files are those that were written.

    Raises:
        UserError: another version, an unknown format, or a file that is missing or has changed.
    """
    if record.schema != SCHEMA:
        raise UserError(
            f"{directory / EXPORT} has schema {record.schema} of exports, this version reads {SCHEMA}; export the run "
            "again"
        )
    name = MODELS.get(str(record.format), "")
    if name not in record.files or any(Path(listed).name != listed for listed in record.files):
        raise UserError(f"{directory / EXPORT}: format {record.format!r} without its file; export the run again")
    for listed, digest in file_digests(directory, record.files).items():
        if digest != record.files[listed]:
            raise UserError(
                f"{directory / listed} is not the file that was exported (SHA-256 {digest[:16]}, expected "
                f"{record.files[listed][:16]}); copy the directory again, or export the run again"
            )
    return directory / name
