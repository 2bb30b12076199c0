import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from busi_lab.data import index as index_module
from busi_lab.data.cache import PixelCache, open_cache
from tests.sharing import made_once


@pytest.fixture(scope="session")
def busi_cache_dir(busi_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "busi-cache", lambda folder: open_cache(busi_root, 224, folder))


@pytest.fixture(scope="session")
def busi_cache(busi_root: Path, busi_cache_dir: Path) -> PixelCache:
    """The real dataset, decoded once; tests that use it carry ``@pytest.mark.busi``."""
    return open_cache(busi_root, 224, busi_cache_dir)


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing is warned of or printed, whatever is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", category=pytest.PytestUnraisableExceptionWarning)
        yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded from now on."""
    seen: list[Path] = []

    def count(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda path, *more: (seen.append(path), read(path, *more))[1]

    for name in ("read_scan", "read_mask_file"):
        monkeypatch.setattr(index_module, name, count(getattr(index_module, name)))
    return seen
