import json
from pathlib import Path

import pytest

from busi_lab import predict
from tests import programs
from tests.inference.small_runs import SHARES, Called, Cli, make_classifier, make_segmenter, save_run
from tests.sharing import made_once


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were never trained: classifiers ``random``, ``first``, ``second``; segmenters."""
    folder = tmp_path_factory.mktemp("runs")
    save_run(folder / "random", make_classifier())
    for name, shares in SHARES.items():
        save_run(folder / "constant" / name, make_classifier(shares))
    save_run(folder / "noise", make_segmenter())
    save_run(folder / "all", make_segmenter(lesion=True))
    save_run(folder / "none", make_segmenter(lesion=False))
    return folder


@pytest.fixture(scope="session")
def joint_run(phantom_root: Path, _cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint run that was trained for two epochs, with the masks of its test at the scans' resolution."""
    places = (f"data.root={phantom_root}", f"data.cache_dir={_cache_dir}", "data.image_size=64", "logger=csv")
    model = ("model=smp", "model.encoder=tu-test_efficientnet", "model.weights=none")
    settings = ("task=multitask", *model, "task.resolution=original", "optim.lr=0.01")

    def make(folder: Path) -> None:
        arguments = ("trainer=smoke", "split=holdout", *places, *settings, f"hydra.run.dir={folder / 'joint'}")
        assert programs.call("train", *arguments) == 0

    return made_once(tmp_path_factory, "joint", make) / "joint"


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Call ``busi-predict`` with ``--out`` (a new folder) and ``--json -`` in this process."""

    def call(*arguments: object, out: Path | None = None) -> Called:
        folder = out or tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        try:
            predict.main([*map(str, arguments), "--out", str(folder), "--json", "-"])
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capfd.readouterr()
        lines = [json.loads(line) for line in printed.out.splitlines()]
        return Called(code, lines, printed.err.splitlines(), folder)

    return call
