import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: test processes side by side would wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from busi_lab.data.phantom import generate_phantoms
from tests.programs import Programs, call
from tests.sharing import made_once

settings.register_profile("busi_lab", deadline=None)  # a busy machine fails no test
settings.load_profile("busi_lab")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skips", metavar="REGEX", help="let a test fail that is skipped for another reason than these")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first, so that processes side by side end at the same time."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))


LONG = tuple(
    f"tests/{name}.py"
    for name in (
        *("run/test_resume", "run/test_safety", "sweep/test_fork_server", "sweep/test_sweep", "tracking/test_wandb"),
        *("test_evaluate", "test_train", "golden/test_golden"),
    )
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where everything has been installed, a skipped test is one that protects nothing and does not say so."""
    report: pytest.TestReport = yield  # type: ignore[misc]
    allowed = item.config.getoption("--skips")
    if allowed is not None and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if not re.search(allowed, reason):
            report.outcome, report.longrepr = "failed", f"{reason}: not among the reasons of --skips"
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset in BUSI's layout, to read only."""
    counts = {"benign": 12, "malignant": 10, "normal": 8}

    def make(folder: Path) -> None:
        generate_phantoms(folder / "set", counts, height=96, width=96)

    return made_once(tmp_path_factory, "phantoms", make) / "set"


@pytest.fixture
def phantom_copy(phantom_root: Path, tmp_path: Path) -> Path:
    """The same dataset, to damage."""
    return Path(shutil.copytree(phantom_root, tmp_path / "phantoms"))


@pytest.fixture
def cysts(phantom_root: Path, tmp_path: Path) -> Path:
    """The phantoms in BUSI's layout, with two classes of other names."""
    root = tmp_path / "cysts"
    for old, new in (("benign", "cyst"), ("malignant", "solid")):
        (root / new).mkdir(parents=True)
        for path in (phantom_root / old).iterdir():
            shutil.copy(path, root / new / path.name.replace(old, new))
    (root / "dataset.json").write_text(json.dumps({"classes": ["cyst", "solid"], "positive": "solid"}))
    return root


@pytest.fixture(scope="session")
def busi_root() -> Path:
    """The real dataset; tests that use it carry ``@pytest.mark.busi``."""
    folder = os.environ.get("BUSI_ROOT", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real dataset: set BUSI_ROOT to its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def _cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _no_cache_at_home(_cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSI_LAB_CACHE", str(_cache_dir))


@pytest.fixture(autouse=True)
def _no_log_of_another_test() -> Iterator[None]:
    """Hydra lets the root logger write to where standard output was then, which a later test would be told of."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in before and not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Starts our programs in processes of their own, quickly."""
    server = Programs(tmp_path_factory.mktemp("logs"))
    yield server
    server.close()


SMALL = ("trainer=smoke", "data.image_size=32", "data.subset=null", "logger=none", "split=grouped_holdout")
TRAINED = {
    "classifier": ("model=custom_cnn", "optim.lr=0.003"),
    "segmenter": ("task=segmentation", "model=mobilenet_unet", "task.resolution=original"),
    "joint": ("task=multitask", "model=mobilenet_unet"),
}


@pytest.fixture(scope="session")
def trained(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory, _cache_dir: Path) -> dict[str, Path]:
    """A finished run of each task on the phantoms, to read only."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUSI_LAB_CACHE", str(_cache_dir))
            patch.chdir(folder)
            for name, settings in TRAINED.items():
                run = f"hydra.run.dir={folder / name}"
                assert call("train", f"data.root={phantom_root}", *SMALL, *settings, run) == 0

    folder = made_once(tmp_path_factory, "trained", make)
    return {name: folder / name for name in TRAINED}
