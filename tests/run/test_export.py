import gc
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from busi_lab import predict
from busi_lab.classes import BUSI
from busi_lab.data.resizing import resize_scan
from busi_lab.data.scan import UnreadableImageError
from busi_lab.errors import UserError
from busi_lab.exported.record import EXPORT
from busi_lab.exported.sessions import Runtime, open_session
from busi_lab.models import Outputs
from busi_lab.report.words import NOT_A_DEVICE
from busi_lab.run import export
from busi_lab.run.graph import Graph
from busi_lab.run.parity import GateError, check_parity, largest_difference, torch_logits
from busi_lab.run.quantization import Truth, judge
from busi_lab.run_directory import find_run_directories
from busi_lab.summary import read_summary
from busi_lab.tasks import MultiTask
from tests.data.image_files import seeds
from tests.programs import call, outcome
from tests.tasks.test_mixing import make_mask_task
from tests.tasks.test_tasks import make_batches

for library in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
    if find_spec(library) is None:  # an import would begin with telemetry
        pytest.skip("the extra export is not installed", allow_module_level=True)


def noise(seed: int, height: int = 32, width: int = 32) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.fixture(scope="module")
def onnx(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The joint run as ONNX, to read only."""
    out = tmp_path_factory.mktemp("onnx") / "joint"
    assert call("export", str(trained["joint"]), "--to", "onnx", "--out", str(out)) == 0
    return out


def test_every_backend_answers_as_the_run(trained: dict[str, Path], onnx: Path) -> None:
    plain = predict.load(trained["joint"])
    task = plain.task(trained["joint"])
    for backend in ("onnxruntime", "openvino"):
        loaded = predict.load(onnx, backend=backend, threads=1)
        assert {(run.backend, run.model) for run in loaded.runs} == {(backend, "mobilenet_unet")}
        for seed in range(3):
            scan = noise(seed)
            with torch.no_grad():
                middle = task(torch.from_numpy(scan)[None, None]).masks.sigmoid().median()
            for each in (task, loaded.task(onnx)):
                each.get_buffer("masks.threshold").copy_(middle)
            expected, found = plain.predict(scan), loaded.predict(scan)
            assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
            assert found.mask is not None and 0.1 < found.mask.mean() < 0.9
            assert (found.mask == expected.mask).mean() > 0.995  # a pixel may lie on the threshold
    assert [run.backend for run in plain.runs] == ["torch", "torch"]


def test_the_directory_says_what_it_holds(trained: dict[str, Path], onnx: Path) -> None:
    run, summary = read_summary(trained["joint"]), read_summary(onnx)
    record = summary.export
    assert record is not None and (record.format, record.int8, record.outputs) == ("onnx", False, ("classes", "masks"))
    assert (record.classes, record.image_size) == (BUSI.names, 32)
    assert record.mask_threshold == pytest.approx(run.metrics["test/threshold"])
    assert record.difference is not None and 0 <= record.difference <= 1e-4
    assert record.compared_on == f"{run.data.val} validation scans of the run"
    assert (summary.split, summary.metrics, summary.temperature) == (run.split, run.metrics, run.temperature)
    assert summary.lesion_calibration == run.lesion_calibration
    names = {path.name for path in onnx.iterdir()}
    expected = {"model.onnx", "example.py", "config.yaml", "split.json", "predictions.csv", "validation.csv"}
    assert names == {*expected, EXPORT} and set(record.files) == expected
    for name, digest in record.files.items():
        assert hashlib.sha256((onnx / name).read_bytes()).hexdigest() == digest
    assert find_run_directories([onnx.parent]) == []  # a comparison counts no run twice


def test_it_is_evaluated_as_the_run(trained: dict[str, Path], onnx: Path, tmp_path: Path) -> None:
    for run, name, options in ((trained["joint"], "run", ()), (onnx, "exported", ("backend=openvino",))):
        place = f"hydra.run.dir={tmp_path / name}"
        assert call("evaluate", f"run={run}", place, "logger=none", *options) == 0
    before, after = read_summary(tmp_path / "run"), read_summary(tmp_path / "exported")
    assert before.metrics.keys() == after.metrics.keys() and before.split == after.split
    for name, value in before.metrics.items():
        assert np.allclose(after.metrics[name], value, atol=1e-4, equal_nan=True), name
    assert call("compare", str(tmp_path / "exported"), str(onnx), "--out", str(tmp_path / "out"), "--format", "md") == 0


def test_the_example_needs_onnxruntime_and_numpy_alone(onnx: Path, tmp_path: Path) -> None:
    scan = noise(0)
    np.save(tmp_path / "scan.npy", scan)
    blocked = ("torch", "PIL", "cv2", "scipy", "busi_lab")
    code = f"import sys, runpy; sys.modules.update(dict.fromkeys({blocked})); sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(onnx / "example.py"), str(tmp_path / "scan.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    predictor = predict.load(onnx)
    told, expected = json.loads(done.stdout), predictor.predict(scan)
    assert told["notice"] == NOT_A_DEVICE
    assert told["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert (np.load(tmp_path / "scan_mask.npy") == expected.mask).all()
    assert told["lesion_pixels"] == expected.lesion_pixels
    assert len((onnx / "example.py").read_text().splitlines()) <= 50


@pytest.mark.parametrize(("height", "width"), [(32, 32), (500, 701), (20, 45), (47, 33)])
def test_the_example_resizes_as_pillow(height: int, width: int) -> None:
    from busi_lab.exported.example import resize

    scan = noise(1, height, width)
    difference = np.abs(resize(scan, 32).astype(int) - resize_scan(scan, 32))
    assert difference.max() <= 1 and difference.mean() < 0.4


def answer(predictor: Any, path: Path) -> Any:
    try:
        return predictor.predict(path).probabilities
    except UnreadableImageError as error:
        return str(error)


def test_odd_files_are_read_or_refused_as_by_the_run(trained: dict[str, Path], onnx: Path, tmp_path: Path) -> None:
    plain, loaded = predict.load(trained["joint"]), predict.load(onnx)
    folder, read = tmp_path / "seeds", 0
    folder.mkdir()
    for name, content in seeds(folder).items():
        path = tmp_path / f"scan{Path(name).suffix}"
        for changed in (content, content[: len(content) // 2]):
            path.write_bytes(changed)
            expected, found = (answer(predictor, path) for predictor in (plain, loaded))
            if isinstance(expected, dict):
                read += 1
                assert found == pytest.approx(expected, abs=1e-5)
            else:
                assert found == expected
    assert read > 5


def test_what_has_changed_or_does_not_fit_is_refused_in_one_line(
    onnx: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    def changed(name: str, **values: Any) -> Path:
        folder = Path(shutil.copytree(onnx, tmp_path / name))
        content = json.loads((folder / EXPORT).read_text())
        content["export"] |= values
        (folder / EXPORT).write_text(json.dumps(content))
        return folder

    damaged = changed("damaged")
    with (damaged / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    lacking = changed("lacking")
    (lacking / "model.onnx").unlink()
    for options, message in (
        ({"run": damaged}, f"{damaged / 'model.onnx'} is not the file that was exported (SHA-256 "),
        ({"run": lacking}, f"{lacking / 'model.onnx'} cannot be read (No such file or directory)"),
        ({"run": changed("newer", schema=2)}, "has schema 2 of exports, this version reads 1; export the run again"),
        ({"run": changed("format", format="tflite")}, "format 'tflite' without its file; export the run again"),
        ({"run": onnx, "backend": "torch"}, "is an exported run (model.onnx); expected onnxruntime or openvino"),
        ({"run": onnx, "precision": "bf16"}, "precision=bf16: onnxruntime computes in 32 bits"),
        ({"run": onnx, "threads": 0}, "threads=0: expected at least 1"),
        ({"run": trained["joint"], "backend": "openvino"}, "is a run of torch"),
    ):
        with pytest.raises(UserError) as error:
            predict.load(**options)  # type: ignore[arg-type]
        assert message in str(error.value) and "\n" not in str(error.value)
    for program, arguments, message in (
        ("predict", ("--run", str(onnx), str(tmp_path), "--out", str(tmp_path / "o"), "--explain", "gradcam"), "no"),
        (
            "ensemble",
            (str(onnx), str(trained["joint"]), "--out", str(tmp_path / "o")),
            "is exported, and has no weights",
        ),
        ("evaluate", (f"run={onnx}", "backend=tensorrt", "logger=none"), "backend=tensorrt: expected auto or torch"),
        ("train", ("model.name=exported", "data=phantom", f"hydra.run.dir={tmp_path / 'o'}"), "it is not trained, but"),
    ):
        code, line = outcome(program, *arguments)
        assert code == 2 and message in line
    assert not (tmp_path / "o").exists()


def test_gradients_are_missed_where_they_are_needed(onnx: Path) -> None:
    explain = pytest.importorskip("busi_lab.inference.explain")
    pytest.importorskip("captum", reason="the extra explain is not installed")
    task = predict.load(onnx).task(onnx)
    with pytest.raises(UserError, match="gradcam needs gradients, which an exported run lacks; use occlusion"):
        explain.Explainer([task], ["gradcam"])
    heat = explain.Explainer([task], ["occlusion"]).explain(noise(0, 40, 50), "benign")["occlusion"]
    assert heat.shape == (40, 50) and heat.max() == pytest.approx(1)


def test_nothing_is_left_of_what_cannot_be_exported(
    trained: dict[str, Path], onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, out = trained["classifier"], tmp_path / "out"
    failed, moved = (Path(shutil.copytree(classifier, tmp_path / name)) for name in ("failed", "moved"))
    content = json.loads((failed / "summary.json").read_text())
    (failed / "summary.json").write_text(json.dumps({**content, "status": "failed", "error": "no"}))
    content["data"]["root"] = "nowhere"
    (moved / "summary.json").write_text(json.dumps(content))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()

    def refused(*arguments: Any, out: Path = out) -> tuple[int, str]:
        found = outcome("export", *map(str, arguments), "--out", str(out))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["failed", "moved", "taken"]
        return found

    for arguments, message in (
        ((classifier, "--to", "onnx", "--int8"), "--int8 with --to onnx: expected --to openvino"),
        ((failed, "--to", "onnx"), f"{failed}: the run failed (no); give the directory of a finished run"),
        ((onnx, "--to", "openvino"), "is exported already; give the run that it is of"),
        ((moved, "--to", "openvino", "--int8"), "--int8 needs scans to calibrate on, and the data of"),
        ((classifier, "--to", "tflite"), "invalid choice: 'tflite'"),
    ):
        code, line = refused(*arguments)
        assert code == 2 and message in line
    code, line = refused(classifier, "--to", "onnx", out=taken)
    assert (code, line) == (2, f"{taken} is not empty; expected a new or an empty folder: choose another")

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        code, line = refused(classifier, "--to", "onnx")
        assert code == 2 and line.endswith("pip install 'busi-lab[export]'")
    with monkeypatch.context() as patch:  # no operator of ONNX
        patch.setattr(Graph, "forward", lambda self, image: (torch.linalg.eigvals(image[:, 0].float()).real,))
        code, line = refused(classifier, "--to", "onnx")
        assert code == 2 and "its network cannot be exported to ONNX (" in line
    write = export.write_network

    def wrong(task: Any, *arguments: Any) -> None:
        task.get_buffer("_mean").add_(0.01)
        write(task, *arguments)
        task.get_buffer("_mean").sub_(0.01)

    with monkeypatch.context() as patch:  # as by an exporter that is silently wrong
        patch.setattr(export, "write_network", wrong)
        code, line = refused(classifier, "--to", "onnx")
        assert code == 1 and "logits of the written file differ from the run's by" in line


def test_without_its_data_a_run_is_compared_on_phantoms(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained["classifier"], tmp_path / "run"))
    content = json.loads((run / "summary.json").read_text())
    content["data"]["root"] = "nowhere"
    (run / "summary.json").write_text(json.dumps(content))
    assert call("export", str(run), "--to", "openvino", "--out", str(tmp_path / "out")) == 0
    assert "on 32 phantoms (the run's own data are not here) logits differ by" in capsys.readouterr().out
    plain, loaded = predict.load(run), predict.load(tmp_path / "out", precision="auto")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.xml", "model.bin"}
    assert loaded.predict(noise(0)).probabilities == pytest.approx(plain.predict(noise(0)).probabilities, abs=0.02)


def test_telemetry_is_off() -> None:
    code = "import sys; from busi_lab.exported.sessions import require; require('openvino'), require('nncf'); "
    code += "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_difference_counts_by_its_logit() -> None:
    expected = {"classes": np.array([[100.0, 0.5]], np.float32), "masks": np.zeros((1, 1), np.float32)}
    for classes, difference in (([100.008, 0.50009], 9e-5), ([100.02, 0.5], 2e-4), ([100, np.nan], np.nan)):
        found = {**expected, "classes": np.array([classes], np.float32)}
        for order in (expected, dict(reversed(expected.items()))):  # NaN must not be passed over
            assert largest_difference(order, found) == pytest.approx(difference, rel=0.01, nan_ok=True)


class Lossy(torch.nn.Module):
    """Its 32 bits are off by up to half of 2 ** -10."""

    def forward(self, image: torch.Tensor) -> Outputs:
        return Outputs(classes=(image.mean((2, 3)) + 10000.0) - 10000.0)


@pytest.mark.parametrize(("off", "refused"), [(0.00005, False), (0.0006, False), (0.003, True), (np.nan, True)])
def test_a_network_that_amplifies_rounding_is_given_twice_its_own(
    off: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffers = {"_mean": torch.zeros(1, 1, 1, 1), "_std": torch.ones(1, 1, 1, 1)}
    of_task = {"network": Lossy(), "get_buffer": buffers.get, "scale": lambda image: image.float() / 255}
    task: Any = SimpleNamespace(**of_task, views="none")
    scans = np.stack([noise(seed) for seed in range(32)])[:, None]
    answers = {"classes": torch_logits(task, scans, ["classes"])["classes"] + np.float32(off)}
    monkeypatch.setattr("busi_lab.run.parity.written_logits", lambda *_: answers)
    with pytest.raises(GateError, match="nothing was kept") if refused else nullcontext():
        assert check_parity(task, scans, ["classes"], Path("model.onnx")) == pytest.approx(off, rel=0.05)


def test_figures_before_and_after_are_judged() -> None:
    masks = np.zeros((100, 1, 10, 10), np.bool_)
    masks[:, :, :5, :8] = True
    right = {"classes": np.eye(3, dtype=np.float32)[[0] * 100], "masks": np.where(masks, 5, -5).astype(np.float32)}
    cases = [f"case {i}" for i in range(100)]
    truth = Truth(cases, masks[:, :, :0], np.zeros(100, np.int64), masks, BUSI, 0.5)
    assert judge(truth, right, right).broken is None
    after = {name: logits.copy() for name, logits in right.items()}
    after["classes"][:2] = [0, 1, 0]
    after["masks"][0, 0, 0, 8] = 5
    verdict = judge(truth, right, after)
    assert verdict.accuracy == (1.0, pytest.approx(0.98)) and verdict.dice == (1.0, pytest.approx(0.99 + 0.8 / 81))
    assert (verdict.worse, verdict.changed[0], verdict.broken) == (2, "case 0: benign -> malignant, is benign", None)
    assert judge(truth, after, right).worse == 0
    after["classes"][2] = [0, 1, 0]
    assert judge(truth, right, after).broken == "3 of 100 labels change for the worse, expected at most 1 in 50"
    after["classes"][2] = [1, 0, 0]
    after["masks"][:20, 0, 0, 8] = 5
    assert judge(truth, right, after).broken == "Dice falls from 1.0000 to 0.9975, expected at most 0.002 less"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        "model.backbone=mobilenetv1_100",
        "model.backbone=vgg16",
        "model.backbone=inception_v3 data.image_size=96",
        "model.backbone=vit_tiny_patch16_224 data.image_size=224",
        "task=localization model=pooled_classifier model.backbone=mobilenetv1_100",
        "model=capsules",
        "model=fused_encoders",
        "task=segmentation model=smp model.arch=Unet",
        "task=segmentation model=smp model.arch=FPN",
        "task=multitask model=mffmt",
        "task=multitask model=aumente_unetpp task.refine=paper",
        "task=multitask model=aumente_nnunet",
    ],
)
def test_every_network_is_exported(settings: str, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ("trainer=smoke", "trainer.max_epochs=1", "data.image_size=64", "logger=none", "split=grouped_holdout")
    assert call("train", f"data.root={phantom_root}", *small, *settings.split(), f"hydra.run.dir={run}") == 0
    out = tmp_path / "out"
    assert call("export", str(run), "--to", "onnx", "--out", str(out)) == 0
    expected = predict.load(run).predict(noise(0, 90, 80))
    for backend in ("onnxruntime", "openvino"):
        found = predict.load(out, backend=backend).predict(noise(0, 90, 80))
        if expected.probabilities is not None:
            assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
        if expected.mask is not None:
            assert (found.mask == expected.mask).mean() > 0.99


@pytest.mark.slow
def test_an_ensemble_is_exported(trained: dict[str, Path], tmp_path: Path) -> None:
    from tests.run.test_ensemble import other

    second, both, out = other(trained["joint"], tmp_path / "second"), tmp_path / "both", tmp_path / "out"
    assert call("ensemble", str(trained["joint"]), str(second), "--out", str(both)) == 0
    assert call("export", str(both), "--to", "onnx", "--out", str(out)) == 0
    expected = predict.load(both).predict(noise(0)).probabilities
    assert predict.load(out).predict(noise(0)).probabilities == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_both_views_are_in_the_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = make_mask_task(MultiTask, views="flip").eval()
    scans, outputs = next(iter(make_batches()))["image"], ("classes", "masks")
    export.write_network(task, outputs, tmp_path / "model.onnx", "a run")
    found = open_session(tmp_path / "model.onnx", Runtime()).run(scans.numpy())
    for name, expected in torch_logits(task, scans.numpy(), outputs).items():
        assert np.abs(found[name] - expected).max() < 1e-3
        assert np.array_equal(expected, getattr(task(scans), name).detach().numpy())


def test_a_joint_run_becomes_int8(trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("busi_lab.run.quantization.MAX_DICE_DROP", 0.5)  # two epochs leave nothing to preserve
    monkeypatch.setattr("busi_lab.run.quantization.MAX_WORSE", 0.5)
    out = tmp_path / "out"
    assert call("export", str(trained["joint"]), "--to", "openvino", "--int8", "--out", str(out)) == 0
    record = read_summary(out).export
    assert record is not None and record.int8
    assert record.quantization["calibration_scans"] == read_summary(out).data.train
    assert (out / "model.bin").stat().st_size < 15e6 and not (out / "int8.xml").exists()
    assert {run.backend for run in predict.load(out).runs} == {"openvino int8"}
    monkeypatch.setattr("busi_lab.run.quantization.MAX_WORSE", -1.0)
    code, line = outcome("export", str(trained["joint"]), "--to", "openvino", "--int8", "--out", str(tmp_path / "no"))
    assert code == 1 and "INT8, with accuracy control: " in line and not (tmp_path / "no").exists()


def test_a_backend_that_is_gone_leaves_signals_as_they_were(trained: dict[str, Path], onnx: Path) -> None:
    for backend in ("onnxruntime", "openvino"):
        loaded = predict.load(onnx, backend=backend, threads=1)
        loaded.predict(noise(0))
    del loaded
    gc.collect()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # it was a segmentation fault
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
