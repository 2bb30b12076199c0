"""A decoder for pydicom: lossless JPEG of 8 bits, in which ultrasound archives keep scans, by Pillow's own library.

pydicom asks Pillow for lossy JPEG alone. The library within Pillow (libjpeg-turbo 3) reads lossless JPEG as well; one
that is older refuses it, and pydicom then asks the next decoder.
"""

import io
from functools import cache
from typing import Any

from PIL import Image
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

LOSSLESS = (JPEGLossless, JPEGLosslessSV1)
DECODER_DEPENDENCIES = dict.fromkeys(LOSSLESS, ("pillow>=10.3",))
"""Asked for by pydicom, like the two functions below."""

LABEL = "busi_lab"


@cache
def register() -> None:
    """Make the decoder known to pydicom."""
    for syntax in DECODER_DEPENDENCIES:
        get_decoder(syntax).add_plugin(LABEL, (__name__, "decode_frame"))


def is_available(uid: str) -> bool:
    """Whether the decoder reads a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner: Any) -> bytes:
    """The stored values of a frame; components as they are, because the header of the file says what they mean.

    Raises:
        ValueError: there are more than 8 bits.
        OSError: the frame is corrupt.
    """
    if runner.bits_stored > 8:
        raise ValueError("lossless JPEG of more than 8 bits")
    try:
        return _decode(source, None)
    except OSError:
        if runner.samples_per_pixel == 1:
            raise
        return _decode(source, "YCbCr")  # components that are marked so: the library converts no lossless ones


def _decode(source: bytes, mode: str | None) -> bytes:
    with Image.open(io.BytesIO(source), formats=("JPEG",)) as image:
        if mode is not None:
            image.draft(mode, image.size)
        return bytes(image.tobytes())
