"""An exported run on one scan, with onnxruntime and numpy alone: ``python example.py SCAN.npy``.

The scan has gray levels, uint8 [H, W]. Prints the class probabilities and writes the lesion mask to
``SCAN_mask.npy``, at the size of the network. Research only, not a medical device.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
NOTICE = "Research only. Not a medical device: what it says must not guide the care of anyone."


def resize(scan: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Gray levels [H, W] as [size, size], smoothed where it shrinks: as Pillow's bilinear filter, to one level."""
    levels = scan.astype(np.float64)
    for _ in range(2):  # rows, then columns
        ratio = len(levels) / size
        distances = (np.arange(len(levels)) + 0.5)[None] - (np.arange(size) + 0.5)[:, None] * ratio
        weights = np.clip(1 - np.abs(distances) / max(ratio, 1), 0, None)
        levels = np.rint(weights / weights.sum(axis=1, keepdims=True) @ levels).T
    return levels.astype(np.uint8)


def predict(scan: NDArray[np.uint8]) -> tuple[dict[str, float] | None, NDArray[np.bool_] | None]:
    """Class probabilities by name and a mask bool [S, S], each None where the run does not give it."""
    export = json.loads((FOLDER / "export.json").read_text())["export"]
    image = resize(scan, export["image_size"])
    session = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"])
    logits = dict(zip(export["outputs"], session.run(export["outputs"], {"image": image[None, None]}), strict=True))
    probabilities = mask = None
    if "classes" in logits:
        shares = np.exp(logits["classes"][0] - logits["classes"][0].max())
        probabilities = dict(zip(export["classes"], (shares / shares.sum()).tolist(), strict=True))
    if "masks" in logits:
        mask = 1 / (1 + np.exp(-logits["masks"][0, 0])) >= export["mask_threshold"]
    return probabilities, mask


if __name__ == "__main__":
    probabilities, mask = predict(np.load(sys.argv[1]))
    pixels = None if mask is None else int(mask.sum())
    print(json.dumps({"notice": NOTICE, "probabilities": probabilities, "lesion_pixels": pixels}))
    if mask is not None:
        np.save(sys.argv[1].removesuffix(".npy") + "_mask.npy", mask)
