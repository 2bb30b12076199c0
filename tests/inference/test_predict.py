"""busi-predict as a user types it, and what it refuses."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from busi_lab import predict
from busi_lab.classes import BUSI
from busi_lab.run_directory import BEST_CHECKPOINT
from busi_lab.summary import SCHEMA
from busi_lab.tasks import checkpoint as of_checkpoint
from tests.inference.small_runs import SHARES, Cli, scan


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_that_would_run_code_is_refused(cli: Cli, runs: Path, tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "created"
    path = shutil.copytree(runs / "random", run) / BEST_CHECKPOINT
    content = {**torch.load(path, weights_only=True), "more": Evil(target)}
    source = scan(tmp_path / "scan.png")
    torch.save(content, path)
    as_torch = cli(source, "--run", run)
    with path.open("wb") as file:
        pickle.dump(content, file)
    for called in (as_torch, cli(source, "--run", run)):
        assert called.code == 2
        assert len(called.errors) == 1
        assert "more than tensors and plain values" in called.errors[0]
        assert not called.out.exists()
    assert not target.exists()


def spoil(run: Path, what: str) -> None:
    checkpoint, summary = run / BEST_CHECKPOINT, run / "summary.json"
    content = json.loads(summary.read_text())
    if what == "missing":
        shutil.rmtree(run)
    elif what == "no summary":
        summary.unlink()
    elif what == "failed":
        summary.write_text(json.dumps({**content, "status": "failed", "error": "out of luck"}))
    elif what == "newer":
        summary.write_text(json.dumps({**content, "schema": SCHEMA + 1}))
    elif what == "cut summary":
        summary.write_text(summary.read_text()[:-9])
    elif what == "evaluation":
        summary.write_text(json.dumps({**content, "source": {"directory": "elsewhere"}}))
    elif what == "unknown task":
        summary.write_text(json.dumps({**content, "task": "detection"}))
    elif what == "other task":
        summary.write_text(json.dumps({**content, "task": "multitask"}))
    elif what == "no checkpoint":
        checkpoint.unlink()
    elif what == "cut checkpoint":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-5000])
    elif what == "empty checkpoint":
        checkpoint.write_bytes(b"")
    elif what == "newer checkpoint":
        torch.save({**torch.load(checkpoint, weights_only=True), "schema": of_checkpoint.SCHEMA + 1}, checkpoint)
    elif what == "bare weights":
        torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], checkpoint)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "no such folder"),
        ("no summary", "holds no finished run"),
        ("failed", "the run failed (out of luck)"),
        ("newer", f"has schema {SCHEMA + 1}, this version reads {SCHEMA}"),
        ("cut summary", "cut or not JSON"),
        ("evaluation", "holds the evaluation of a run; give the directory of that run, elsewhere"),
        ("unknown task", "task 'detection', expected classification"),
        ("other task", "does not fit a multitask task"),
        ("no checkpoint", "best.ckpt is missing"),
        ("cut checkpoint", "is damaged"),
        ("empty checkpoint", "is damaged"),
        ("newer checkpoint", f"has schema {of_checkpoint.SCHEMA + 1}"),
        ("bare weights", "is no checkpoint of busi-lab"),
    ],
)
def test_runs_that_cannot_be_used(cli: Cli, runs: Path, tmp_path: Path, what: str, message: str) -> None:
    run = Path(shutil.copytree(runs / "random", tmp_path / "run"))
    spoil(run, what)
    called = cli(scan(tmp_path / "scan.png"), "--run", run)
    assert called.code == 2
    assert len(called.errors) == 1, called.errors
    assert called.errors[0].startswith("error: ")
    assert message in called.errors[0]
    assert not called.lines
    assert not called.out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no run to predict with"),
        (("--classifier", "RUNS/noise"), "is a segmentation run and cannot be the classifier"),
        (("--segmenter", "RUNS/random"), "is a classification run and cannot be the segmenter"),
        (("--run", "RUNS/random", "--batch-size", "0"), "--batch-size 0: expected at least 1"),
        (("--run", "RUNS/random", "--batch-size", "many"), "--batch-size: invalid int value"),
        (("--run", "RUNS/random", "--device", "cuda:99"), "--device cuda:99: not to be had here"),
        (("--run", "RUNS/random", "--device", "abacus"), "--device abacus: not to be had here"),
        (("--run", "RUNS/random", "--device", "meta"), "--device meta: not to be had here"),
        (("--run", "RUNS/none", "--explain", "gradcam"), "explanations are of a class: give a classifier"),
        (("--run", "RUNS/random", "--explain", "tea"), "invalid choice: 'tea'"),
        (("--run", "RUNS/random", "--color"), "unrecognized arguments: --color"),
        (("--run", "RUNS/random", "TMP/nothing.png"), "nothing.png: no such file or folder"),
        (("--run", "RUNS/random", "x" * 300), "File name too long"),
        (("--run", "RUNS/random", "--json", "TMP/no/lines.json"), "expected a new file in a folder that exists"),
        (("--run", "RUNS/random", "--out", "TMP/full"), "expected a new or an empty folder"),
        (("--run", "RUNS/random", "--out", "TMP/full/file"), "expected a new or an empty folder"),
        (("--run", "RUNS/random", "--out", "TMP/full/file/below"), "cannot be read or written (Not a directory)"),
        (("--run", "RUNS/random", "--out", "TMP/" + "x" * 300), "cannot be read or written (File name too long)"),
        (("--run", "RUNS/random", "--out", "/proc/nothing"), "cannot be read or written ("),
    ],
)
def test_wrong_input_is_one_line(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    given = [item.replace("RUNS", str(runs)).replace("TMP", str(tmp_path)) for item in arguments]
    out = () if "--out" in given else ("--out", str(tmp_path / "out"))
    source = str(scan(tmp_path / "scan.png"))
    with pytest.raises(SystemExit) as stopped:
        predict.main([source, *out, *given])
    printed = capfd.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "scan.png"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("empty", "--out", "out"), "no scan found; expected PNG"),
        (("scan.png",), "nowhere to write to"),
        (("scan.png", "--json", "-", "--explain", "gradcam"), "--explain draws pictures: give --out"),
        (("--out", "out"), "the following arguments are required: IMAGE_OR_FOLDER"),
    ],
)
def test_nothing_to_do(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    scan(tmp_path / "scan.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        predict.main([*arguments, "--run", str(runs / "random")])
    assert stopped.value.code == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_lines_to_a_file(runs: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.json"
    predict.main([str(scan(tmp_path / "scan.png")), "--run", str(runs / "constant/first"), "--json", str(lines)])
    (record,) = map(json.loads, lines.read_text().splitlines())
    assert record["probabilities"] == pytest.approx(dict(zip(BUSI.names, SHARES["first"], strict=True)))
    assert "pictures" not in record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.json", "scan.png"]


@pytest.mark.parametrize("place", ["scan.png", "out/lines.json", "out"])
def test_lines_take_no_place_of_another_file(
    runs: Path, tmp_path: Path, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    before = scan(tmp_path / "scan.png").read_bytes()
    with pytest.raises(SystemExit):
        out = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / place)]
        predict.main([str(tmp_path / "scan.png"), "--run", str(runs / "random"), *out])
    assert "expected a new file" in capfd.readouterr().err
    assert (tmp_path / "scan.png").read_bytes() == before and not any((tmp_path / "out").iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        predict.main([str(scan(tmp_path / "scan.png")), "--run", str(runs / "random"), "--json", "/dev/full"])
    assert stopped.value.code == 2
    assert "cannot be read or written (No space left on device)" in capfd.readouterr().err


def test_help_and_a_wrong_option_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from busi_lab import predict\n"
        "for option in ('--help', '--nonsense'):\n"
        "    try: predict.main([option, 'scan.png'])\n"
        "    except SystemExit as stopped: print('code', stopped.code)\n"
        "assert not {'torch', 'numpy', 'PIL', 'tqdm'} & sys.modules.keys(), 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "IMAGE_OR_FOLDER" in done.stdout
    assert done.stdout.splitlines()[-1] == "code 2"
    assert done.stderr == "error: unrecognized arguments: --nonsense; see busi-predict --help\n"
