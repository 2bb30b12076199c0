"""The answers of an exported network, in a process that has nothing but the files: no torch, no state of the export.

``python -m busi_lab.exported.answers MODEL SCANS.npy FOLDER`` writes ``FOLDER/OUTPUT.npy`` for each output.
"""

import sys
from pathlib import Path

import numpy as np

from busi_lab.errors import exit_on_user_error
from busi_lab.exported.sessions import Runtime, open_session

_AT_ONCE = 16


def write_answers(model: Path, scans: Path, folder: Path) -> None:
    """Apply a network, in 32 bits, to scans uint8 ``[N, 1, S, S]`` and write its logits, a file for each output."""
    session, images = open_session(model, Runtime()), np.load(scans, mmap_mode="r")
    written: dict[str, np.memmap] = {}
    for start in range(0, len(images), _AT_ONCE):
        for name, logits in session.run(np.ascontiguousarray(images[start : start + _AT_ONCE])).items():
            if name not in written:
                shape = (len(images), *logits.shape[1:])
                written[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
            written[name][start : start + _AT_ONCE] = logits
    for file in written.values():
        file.flush()


if __name__ == "__main__":
    with exit_on_user_error():
        write_answers(*map(Path, sys.argv[1:]))
