"""An exported run on one scan, with onnxruntime and numpy alone: ``python example.py SCAN.npy``.

The scan has gray levels, uint8 [H, W]. Prints the class probabilities and writes the lesion mask to
``SCAN_mask.npy``, at the size of the network.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

FOLDER = Path(__file__).parent


def weights(old: int, new: int) -> NDArray[np.float64]:
    """Rows of a bilinear filter that smooths where it shrinks, as Pillow's: [new, old]."""
    ratio = old / new
    distances = (np.arange(old) + 0.5)[None] - (np.arange(new) + 0.5)[:, None] * ratio
    rows: NDArray[np.float64] = np.clip(1 - np.abs(distances) / max(ratio, 1), 0, None)
    rows /= rows.sum(axis=1, keepdims=True)
    return rows


def predict(scan: NDArray[np.uint8]) -> tuple[dict[str, float] | None, NDArray[np.bool_] | None]:
    """Class probabilities by name and a mask bool [S, S], each None where the run does not give it."""
    export = json.loads((FOLDER / "export.json").read_text())["export"]
    size = export["image_size"]
    narrow = np.rint(scan @ weights(scan.shape[1], size).T)
    image = np.rint(weights(scan.shape[0], size) @ narrow).astype(np.uint8)
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
    print(json.dumps({"probabilities": probabilities, "lesion_pixels": None if mask is None else int(mask.sum())}))
    if mask is not None:
        np.save(sys.argv[1].removesuffix(".npy") + "_mask.npy", mask)
