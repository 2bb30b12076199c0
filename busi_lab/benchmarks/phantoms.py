"""Phantoms for measurements, made once."""

import os
from pathlib import Path

from busi_lab.data.cache import resolve_cache_dir
from busi_lab.data.phantom import generate_phantoms

_SHARES = {"benign": 0.56, "malignant": 0.27, "normal": 0.17}
"""Of BUSI's 780 images."""


def cache_folder() -> Path:
    """The folder of all caches.

    Raises:
        UserError: there is none that can be written to.
    """
    folder = resolve_cache_dir(os.environ.get("BUSI_LAB_CACHE", "auto"))
    assert folder is not None
    return folder


def phantoms(count: int, height: int = 470, width: int = 580) -> Path:
    """A folder of about ``count`` phantoms, about as large as BUSI's scans.

    Raises:
        UserError: the cache is no place to write to.
    """
    folder = cache_folder()
    counts = {label: max(4, round(share * count)) for label, share in _SHARES.items()}
    root = folder / f"bench-1-{count}-{height}x{width}"
    if not root.is_dir():
        generate_phantoms(root, counts, height=height, width=width)
    return root
