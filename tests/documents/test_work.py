"""Commands of the documents that work in seconds on phantoms, carried out as they stand there."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_lab.data.phantom import generate_phantoms
from tests.conftest import SMALL
from tests.data.image_files import dicom
from tests.data.published_layouts import busbra, phantom_cases
from tests.documents.pages import PAGES, commands
from tests.documents.understanding import main_of, programs, words
from tests.programs import call

pytestmark = pytest.mark.slow

_TINY = ("data.image_size=32", "data.subset=2", "trainer.max_epochs=1", "model.weights=none", "logger=none")
"""What is appended to training that is carried out."""

_OTHERS = (
    *(
        "busi-data download",
        "busi-export",
        "busi-bench",
        "busi-app",
        "--wandb",
        "hf://",
        "--bench",
        "exported/",
        "--help",
    ),
    *("search=", "sweep=", "resume=", "experiment=", "task=", "model.", "data=folder", "/scans --out"),
)
"""What needs Kaggle, a hub, W&B, an extra or hours; ``test_commands.py`` checks that it is understood."""


def everything() -> list[tuple[str, ...]]:
    """All commands of the blocks, each once."""
    return list(dict.fromkeys(tuple(words(line)) for page in PAGES for line in commands(page)))


WORKING = [command for command in everything() if not any(part in " ".join(command) for part in _OTHERS)]


_SWEEPS = (
    *("sweeps/kfold_classifiers-1a2b", "sweeps/paper_classifiers-3c4d", "sweeps/NAME", "sweeps/paper", "DIR"),
    *("sweeps/annotations", "sweeps/warm", "sweeps/best", "sweeps/seeds"),
)


@pytest.fixture(scope="module")
def stock(
    phantom_root: Path, trained: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    """What the documents name as if it were there: path -> where it is."""
    made = tmp_path_factory.mktemp("stock")
    seeds = [made / f"seed{seed}" for seed in (0, 1, 2)]
    for seed, run in enumerate(seeds):
        settings = ("model=custom_cnn", f"seed={seed}", f"hydra.run.dir={run}")
        assert call("train", f"data.root={phantom_root}", *SMALL, *settings) == 0
    others = generate_phantoms(made / "others", {"benign": 8, "malignant": 8}, seed=3, height=96, width=96)
    busbra(made / "BUSBRA", phantom_cases(others))
    assert call("datasets", "import", "busbra", str(made / "BUSBRA"), "--out", str(made / "busbra")) == 0
    generate_phantoms(made / "hospital", {"benign": 5, "malignant": 5, "normal": 4}, seed=1, height=96, width=96)
    table = made / "hospital/labels.csv"
    assert call("datasets", "labels", str(made / "hospital"), "--out", str(table)) == 0
    cases = [path.stem for path in sorted((phantom_root / "benign").glob("*).png"))]
    (made / "flags.csv").write_text("image,flag\n" + "".join(f"{name},caliper\n" for name in cases))
    scan = next((phantom_root / "malignant").glob("*).png"))
    (made / "scans").mkdir()
    shutil.copy(scan, made / "scans/scan.png")
    dicom(made / "scan.dcm", np.asarray(Image.open(scan).convert("L")))
    assert call("ensemble", *map(str, seeds), "--out", str(made / "together")) == 0
    runs = (*seeds, *trained.values(), made / "together")
    assert call("compare", *map(str, runs), "--out", str(made / "main"), "--format", "csv") == 0
    return {
        **{f"{folder}/seed{seed}": run for folder in ("runs", *_SWEEPS) for seed, run in enumerate(seeds)},
        **{f"sweeps/both/fold0-seed{seed}": run for seed, run in enumerate(seeds)},
        "runs/both/fold0": made / "together",
        "runs/mobilenet": trained["classifier"],
        "runs/unet": trained["segmenter"],
        "runs/joint": trained["joint"],
        "runs/together": made / "together",
        "data/busi": phantom_root,
        "data/busbra": made / "busbra",
        "other_hospital": made / "hospital",
        "my_hospital": made / "hospital",
        **{name: made / name for name in ("BUSBRA", "main", "flags.csv", "scans", "scan.dcm")},
        "scan.png": made / "scans/scan.png",
    }


def lay_out(stock: Mapping[str, Path], place: Path, command: Sequence[str]) -> None:
    """Put everything into the place but what the command is going to write."""
    written = command[command.index("--out") + 1] if "--out" in command else ""
    for name, source in stock.items():
        target = place / name
        if written and (name == written or name.startswith(f"{written}/")):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=os.link)
        else:
            shutil.copy(source, target)


@pytest.mark.parametrize("command", WORKING, ids=lambda command: " ".join(command)[:70])
def test_a_command_works(
    command: tuple[str, ...], stock: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(stock, tmp_path, command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUSI_ROOT", "data/busi")
    found = [str(path) for word in command[1:] if "*" in word for path in sorted(Path().glob(word))]
    arguments = [word for word in command[1:] if "*" not in word] + found
    tiny = _TINY if command[0] == "busi-train" else ()
    main = main_of(command[0])
    try:
        main([*arguments, *tiny])
    except SystemExit as ended:
        assert not ended.code


def test_every_program_but_those_that_need_extras_or_minutes_is_among_them() -> None:
    assert {command[0] for command in WORKING} == set(programs()) - {"busi-export", "busi-bench", "busi-app"}
    assert len(WORKING) > len(everything()) / 4
