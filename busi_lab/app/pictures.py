"""Pictures of the page: a scan, and transparent layers that lie upon it."""

import base64
import io

import cv2
import numpy as np
from PIL import Image

from busi_lab.data.scan import Gray, Mask
from busi_lab.errors import UserError, one_line
from busi_lab.inference.explain import Heat
from busi_lab.report.figures.overlay import PREDICTED, outline, resized

LONGEST = 1200  # pixels of a side on the page; the model sees the scan as it is

_LARGEST_DRAWING = 8_000_000  # characters


def shown_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width on the page of a scan ``[H, W]``: as it is, or smaller where it is large."""
    scale = min(1.0, LONGEST / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def scan_picture(pixels: Gray) -> Image.Image:
    """The scan, gray."""
    height, width = shown_size(pixels.shape)
    if (height, width) == pixels.shape:
        return Image.fromarray(pixels)
    return Image.fromarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))


def outline_layer(mask: Mask) -> Image.Image:
    """The outline of a mask bool ``[H, W]`` with a faint filling, transparent elsewhere."""
    height, width = shown_size(mask.shape)
    small = resized(mask, (height, width))
    layer = np.zeros((height, width, 4), np.uint8)
    layer[small] = (*PREDICTED, 40)
    picture = Image.fromarray(layer, "RGBA")
    if small.any():
        outline(picture, small, (*PREDICTED, 255), width=max(2, width // 250))  # type: ignore[arg-type]
    return picture


def heat_layer(heat: Heat) -> Image.Image:
    """A heat map float32 ``[H, W]`` of 0 to 1, the more transparent the less it says."""
    height, width = shown_size(heat.shape)
    values = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap((values * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    alpha = (values * 230).astype(np.uint8)
    return Image.fromarray(np.dstack([colours, alpha]), "RGBA")


def mask_layer(mask: Mask) -> Image.Image:
    """A mask bool ``[H, W]`` as a drawing that can be corrected, transparent where there is none."""
    small = resized(mask, shown_size(mask.shape))
    layer = np.zeros((*small.shape, 4), np.uint8)
    layer[small] = (*PREDICTED, 255)
    return Image.fromarray(layer, "RGBA")


def drawn_mask(drawing: str, shape: tuple[int, ...]) -> Mask:
    """What has been drawn, a PNG as a data URI, as a mask bool ``[H, W]`` of the scan's size.

    Raises:
        UserError: it is no such picture, or of another scan.
    """
    begin = "data:image/png;base64,"
    try:
        if not drawing.startswith(begin) or len(drawing) > _LARGEST_DRAWING:
            raise ValueError("no PNG inside")
        with Image.open(io.BytesIO(base64.b64decode(drawing[len(begin) :], validate=True)), formats=["PNG"]) as picture:
            if picture.size[::-1] != shown_size(shape):
                raise ValueError(f"{picture.size[0]} x {picture.size[1]} pixels")
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"the drawing is no mask of this scan ({one_line(error)[:80]}); take the scan again") from None
    return resized(alpha > 127, shape)


def png(picture: Image.Image) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def data_uri(picture: Image.Image) -> str:
    """A picture inside a page, so that no file of it is written."""
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
