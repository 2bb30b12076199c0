"""What W&B is told, on a recorder in place of its client; and two real offline runs, read back by its own tool."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles import Recorder, Result
from wandb.util import get_core_path

from busi_lab.errors import UserError
from busi_lab.files import write_rows
from busi_lab.summary import Summary, read_summary
from busi_lab.sweep.executors import local
from busi_lab.tracking import Job
from busi_lab.tracking.mode import choose_mode
from busi_lab.tracking.settings import WandbSettings
from busi_lab.tracking.wandb import WandbTracker
from tests.programs import Programs, call

FAST = ("trainer=smoke", "data.image_size=32", "logger=wandb")


def opened(directory: Path, kind: str = "train", **settings: Any) -> WandbTracker:
    return WandbTracker(
        {"mode": "offline", **settings}, Job(directory, "small-seed0", kind, {"model": {"name": "cnn"}})
    )


def test_a_run_is_opened_with_its_settings(recorder: Recorder, tmp_path: Path) -> None:
    tracker = opened(tmp_path, tags=["first", "second"], notes="why")
    arguments = recorder.runs[0].arguments
    identifier = (tmp_path / "wandb/id").read_text().strip()
    expected = {"project": "busi-lab", "entity": None, "group": None, "name": "small-seed0", "notes": "why"}
    expected |= {"tags": ["first", "second"], "job_type": "train", "dir": str(tmp_path), "id": identifier}
    assert arguments.items() >= {**expected, "mode": "offline", "resume": None}.items()
    assert arguments["config"] == {"model": {"name": "cnn"}}
    assert tracker.record == {"id": identifier, "group": None, "directory": "wandb"}
    assert tracker.mask_panel == (8, 5)
    assert opened(tmp_path, name="other", group="mine", mask_scans=2, mask_epochs=1).mask_panel == (2, 1)
    again = recorder.runs[1].arguments
    assert (again["id"], again["name"], again["group"]) == (identifier, "other", "mine")  # a continued run


def test_start_sends_digests_and_defines_summaries(recorder: Recorder, result: Result, tmp_path: Path) -> None:
    opened(tmp_path).start(result.summary, "val/f1", "max", ("f1", "accuracy"))
    run = recorder.runs[0]
    assert (
        run.configured.items()
        >= {
            "parameters": 12,
            "split_digest": "s",
            "test_digest": "t",
            "leaked_test_images": 0,
            "data_digest": "d",
            "images": {"train": 8, "val": 4, "test": 4},
        }.items()
    )
    assert run.defined["val/accuracy"] == {"step_metric": "epoch", "summary": "max"}
    assert run.defined["train/loss"] == {"step_metric": "epoch", "summary": "min"}
    assert {"epoch", "train/*", "val/*", "optim/*", "speed/*", "val/loss", "val/f1"} <= set(run.defined)
    opened(tmp_path / "evaluation", "eval").start(result.summary, None, "max", ())
    assert not recorder.runs[1].defined
    assert recorder.runs[1].configured["split_digest"] == "s"


def test_epochs_and_masks_are_steps(recorder: Recorder, result: Result, tmp_path: Path) -> None:
    tracker = opened(tmp_path)
    tracker.epoch({"epoch": "3", "val/f1": 0.5, "lr": 0.1, "images_per_second": 9.0, "seconds": 2.0})
    tracker.masks(3, [("a", result.pictures["a"], result.true_masks["a"], result.predicted_masks["a"])])
    (row, step), (shown, mask_step) = recorder.runs[0].logged
    names = {"epoch": 3, "val/f1": 0.5, "optim/lr": 0.1}
    assert (row, step) == ({**names, "speed/images_per_second": 9.0, "speed/epoch_seconds": 2.0}, 3)
    assert (mask_step, shown["epoch"], shown["val/masks"][0].caption) == (3, 3, "a")
    assert shown["val/masks"][0].masks["prediction"]["mask_data"].shape == (32, 32)


def test_a_result_holds_what_a_dashboard_needs(recorder: Recorder, result: Result, tmp_path: Path) -> None:
    opened(tmp_path).result(result)
    run = recorder.runs[0]
    assert run.summary == {
        "test/accuracy": 0.5,
        "best/val/f1": 0.4,
        "best/epoch": 3,
        "parameters": 12,
        "images_per_second": 5.0,
        **dict.fromkeys(("inference_milliseconds", "peak_memory_bytes", "peak_gpu_memory_bytes")),
    }
    assert set(run.shown) == {
        *("test/predictions", "test/confusion_matrix", "test/roc", "test/pr", "test/worst_mistakes"),
        *("test/masks_worst", "test/masks_median", "test/masks_best", "test/gradcam"),
    }
    mistakes = [image.caption for image in run.shown["test/worst_mistakes"]]
    assert mistakes == ["d: malignant, taken for normal (0.80)", "b: malignant, taken for benign (0.70)"]
    assert [image.caption for image in run.shown["test/masks_worst"]] == [
        "a: Dice 0.000",
        "b: Dice 0.250",
        "d: Dice 0.750",
    ]
    assert run.shown["test/gradcam"][0].caption == "d: malignant, predicted normal"
    assert run.shown["test/predictions"].columns == ["scan", *result.rows[0]]
    assert run.shown["test/roc"].keys == ["benign", "malignant", "normal"]
    assert run.artifacts == []  # offline


def test_weights_are_an_artifact_where_wanted(recorder: Recorder, result: Result, tmp_path: Path) -> None:
    opened(tmp_path, log_model=True).result(result)
    opened(tmp_path / "evaluation", "eval", log_model=True).result(result)  # has no weights of its own
    ((artifact, aliases),) = recorder.runs[0].artifacts
    assert (artifact.files, aliases) == ([str(tmp_path / "checkpoints/best.ckpt")], ["best"])
    assert recorder.runs[1].artifacts == []
    assert "test/gradcam" in recorder.runs[1].shown


def test_a_comparison_is_a_report(recorder: Recorder, tmp_path: Path) -> None:
    write_rows(tmp_path / "table.csv", [{"run": "a", "f1": 0.5}], ("run", "f1"))
    for name in ("table1_metrics.png", "report.html"):
        (tmp_path / name).touch()
    opened(tmp_path, "report").report(tmp_path)
    assert set(recorder.runs[0].shown) == {"report/table1_metrics", "report/runs", "report/page"}
    assert recorder.runs[0].arguments["job_type"] == "report"


def test_online_the_dataset_is_an_input_and_a_failure_an_alert(
    recorder: Recorder, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busi_lab.tracking.wandb.choose_mode", lambda *_: "online")
    result.summary.data = replace(result.summary.data, name="busi")
    tracker = opened(tmp_path, mode="auto")
    tracker.start(result.summary, "val/f1", "max", ())
    tracker.failure("why")
    (artifact,) = recorder.runs[0].used
    assert (artifact.name, artifact.metadata) == ("dataset-busi", {"name": "busi", "digest": "d"})
    assert recorder.runs[0].alerts == [("small-seed0 has failed", "why", "ERROR")]


def test_an_offline_folder_replaces_those_of_earlier_attempts(recorder: Recorder, tmp_path: Path) -> None:
    for name in ("offline-run-1-a", "run-1-a"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    tracker = opened(tmp_path)
    tracker.earlier([{"epoch": "0", "val/f1": "0.5", "val/iou": ""}, {"epoch": "1", "val/f1": "0.25", "val/iou": ""}])
    assert not (tmp_path / "wandb/offline-run-1-a").exists()
    assert (tmp_path / "wandb/run-1-a").exists()
    assert recorder.runs[0].logged == [({"epoch": 0, "val/f1": 0.5}, 0), ({"epoch": 1, "val/f1": 0.25}, 1)]


@pytest.mark.parametrize("failed", [True, False])
def test_the_end_says_how_it_went(recorder: Recorder, tmp_path: Path, failed: bool) -> None:
    tracker = opened(tmp_path)
    tracker.failure("why")
    tracker.finish(failed)
    assert recorder.runs[0].exit_code == int(failed)
    assert recorder.runs[0].summary["error"] == "why"


def test_an_agent_names_the_run_that_it_trains(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agent123")
    opened(tmp_path / "run")
    opened(tmp_path / "report", "report")
    assert recorder.runs[0].id == "agent123"
    assert recorder.runs[1].id != "agent123"


def test_a_sweep_decides_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert WandbTracker.for_sweep({}, tmp_path) == {"WANDB_MODE": "offline", "WANDB_RUN_GROUP": tmp_path.name}
    assert caplog.messages[-1].endswith(f"wandb sync '{tmp_path}'/*/wandb/offline-run-*")
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert WandbTracker.for_sweep({}, tmp_path)["WANDB_RUN_GROUP"] == "mine"


def test_jobs_on_other_machines_look_for_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr("busi_lab.tracking.mode._obstacle", lambda: looks.append(1) or "no network")
    found = WandbTracker.for_sweep_elsewhere({}, tmp_path)
    assert "WANDB_MODE" not in found and found["WANDB_RUN_GROUP"] == tmp_path.name and looks == []
    for name, value in {**found, "BUSI_LAB_JOB": "sweep", "WANDB_MODE": "online"}.items():
        monkeypatch.setenv(name, value)
    assert choose_mode(WandbSettings(), "x") == "offline" and looks == [1]
    monkeypatch.delenv("BUSI_LAB_WANDB_LOOK")
    assert choose_mode(WandbSettings(), "x") == "online" and looks == [1]  # the sweep has looked


def test_a_refused_run_goes_on_offline_unless_online_was_asked_for(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("busi_lab.tracking.wandb.choose_mode", lambda *_: "online")
    assert opened(tmp_path / "online", mode="auto").record["url"] == "https://there"
    recorder.refused = ("online",)
    assert "url" not in opened(tmp_path / "run", mode="auto").record
    assert recorder.runs[-1].arguments["mode"] == "offline"
    assert caplog.messages[-1] == "W&B goes on offline: no such entity"
    with pytest.raises(UserError, match="W&B refuses the run: no such entity"):
        opened(tmp_path / "run", mode="online")


def test_an_unwritable_wandb_folder(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "wandb").write_text("in the way")
    with pytest.raises(UserError, match=r"wandb cannot be written to .*set logger=csv"):
        opened(tmp_path)


def inspect(run: Path) -> dict[str, Any]:
    return dict(json.loads(_leet(run, "--summary")))


def records(run: Path) -> str:
    return _leet(run)


def _leet(run: Path, *flags: str) -> str:
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", *flags, "--json", "--run-file", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.slow
def test_real_offline_files_of_a_run_and_its_evaluation(programs: Programs, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("task=multitask", "model=mobilenet_unet", "model.weights=none", "logger.wandb.mask_scans=2")
    words = ("logger.wandb.tags=[first,second]", "logger.wandb.notes=why")
    data = (f"data.root={phantom_root}", f"hydra.run.dir={run}")
    output = programs.run("train", *FAST, *settings, *words, *data, cwd=tmp_path)
    assert output.count("W&B is offline") == 1
    assert "W&B is lost" not in output
    summary, wandb = read_summary(run), inspect(run)
    assert summary.wandb == {"id": (run / "wandb/id").read_text().strip(), "group": None, "directory": "wandb"}
    assert (wandb["run_id"], wandb["state"], wandb["exit_code"]) == (summary.wandb["id"], "finished", 0)
    assert (wandb["project"], wandb["name"], wandb["notes"]) == ("busi-lab", "mobilenet_unet-seed0", "why")
    assert wandb["config"]["split_digest"] == summary.split.digest
    assert wandb["config"]["model"]["name"] == "mobilenet_unet"
    found = wandb["summary"]
    for name in ("accuracy", "f1", "auroc", "loss"):
        assert found[f"test/{name}"] == pytest.approx(summary.metrics[f"test/{name}"])
        assert found[f"best/val/{name}"] == pytest.approx(summary.metrics[f"val/{name}"])
    assert found["parameters"] == summary.parameters
    assert found["images_per_second"] == pytest.approx(summary.images_per_second)
    log = records(run)
    for key in (
        *("test/predictions", "test/confusion_matrix", "test/roc", "test/pr", "test/worst_mistakes", "optim/lr"),
        *("val/masks", "test/masks_worst", "test/masks_median", "test/masks_best"),
        *('"job_type":"train"', '"tags":["first","second"]'),
    ):
        assert key in log, key
    files = list((run / "wandb").glob("offline-run-*/files/media/images/mask/val/*.png"))
    assert len(files) == 4  # two scans, each with the true and the predicted mask, shown once in two epochs

    offline = ("explain=gradcam", "logger=wandb", "logger.wandb.mode=offline", "hydra.run.dir=result")
    assert "W&B is lost" not in programs.run("evaluate", "run=run", *offline, cwd=tmp_path)
    result = tmp_path / "result"
    summary, wandb = read_summary(result), inspect(result)
    assert summary.wandb == {"id": (result / "wandb/id").read_text().strip(), "group": None, "directory": "wandb"}
    assert (wandb["name"], wandb["state"], wandb["exit_code"]) == ("mobilenet_unet-on-busi", "finished", 0)
    for name in ("accuracy", "f1", "gradcam_energy"):
        assert wandb["summary"][f"test/{name}"] == pytest.approx(summary.metrics[f"test/{name}"])
    log = records(result)
    for key in ("test/predictions", "test/confusion_matrix", "test/gradcam", '"job_type":"eval"'):
        assert key in log, key


@pytest.mark.slow
def test_real_offline_files_of_a_sweep_with_a_failing_job(
    programs: Programs,
    phantom_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(local, "ForkServer", programs.lent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "agent123")  # names one run, not every job
    jobs = (*FAST, "model=custom_cnn", f"data.root={phantom_root}", "split.test_fraction=0.3,0.001")
    capfd.readouterr()
    assert call("train", "-m", *jobs) == 1
    assert "".join(capfd.readouterr()).count("W&B is offline") == 1
    (sweep,) = (tmp_path / "sweeps").iterdir()
    names = ("test_fraction0.3", "test_fraction0.001", "comparison")
    good, bad, report = (inspect(sweep / name) for name in names)
    assert (good["exit_code"], bad["exit_code"]) == (0, 1)
    assert "leaves no benign image for test" in bad["summary"]["error"]
    assert len({good["run_id"], bad["run_id"], report["run_id"], "agent123"}) == 4
    for run in names:
        assert f'"run_group":"{sweep.name}"' in records(sweep / run)
    log = records(sweep / "comparison")
    assert '"job_type":"report"' in log
    assert "report/runs" in log
    assert "report/table1_metrics" in log


def test_summaries_without_figures_can_be_started(recorder: Recorder, tmp_path: Path) -> None:
    opened(tmp_path).start(Summary("failed"), None, "max", ())
    assert recorder.runs[0].configured["parameters"] is None
