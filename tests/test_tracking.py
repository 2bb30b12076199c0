"""W&B without a server: settings, the choice of mode, and what an offline run holds."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from busi_lab import tracking
from busi_lab.errors import UserError
from busi_lab.run_directory import read_summary
from busi_lab.tracking import WandbSettings, choose_mode, wandb_settings

WANDB = str(Path(sys.executable).with_name("wandb"))
FAST = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=wandb")


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, wherever the tests run."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "BUSI_LAB_JOB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@contextmanager
def server(status: int, answer: object) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"projekt": "x"}, "logger.wandb.projekt: unknown key"),
        ({"project": "a/b"}, "logger.wandb.project='a/b'"),
        ({"project": ""}, "1 to 128 characters"),
        ({"entity": "a b?"}, "logger.wandb.entity"),
        ({"name": "x" * 129}, "logger.wandb.name"),
        ({"tags": ["x" * 65]}, "tags of 1 to 64 characters"),
        ({"tags": "one"}, "expected a list"),
        ({"tags": [""]}, "tags of 1 to 64"),
        ({"mode": "sometimes"}, "logger.wandb.mode=sometimes"),
    ],
)
def test_settings_that_wandb_would_refuse(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        wandb_settings({"wandb": settings})
    assert message in str(caught.value)


def test_other_loggers_need_no_wandb() -> None:
    assert wandb_settings({}) is None
    code = (
        "import sys; from busi_lab import train, sweep, tracking, compare\n"
        "assert tracking.wandb_settings({'wandb': {}}) is not None\n"
        "assert 'wandb' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def chosen(monkeypatch: pytest.MonkeyPatch, url: str, key: str = "k" * 40) -> str:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", key)
    return choose_mode(WandbSettings(), "there")


def test_without_a_key_offline_with_the_command_that_syncs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert choose_mode(WandbSettings(), "'runs/a'/wandb/offline-run-*") == "offline"
    assert caplog.messages == [
        "W&B is offline: no API key is configured (wandb login sets one); send it later with: "
        "wandb sync 'runs/a'/wandb/offline-run-*"
    ]


def test_modes_by_what_the_server_says(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with server(200, {"data": {"viewer": {"id": "me"}}}) as url:
        assert chosen(monkeypatch, url) == "online"
        with monkeypatch.context() as job:
            job.setenv("BUSI_LAB_JOB", "sweep")
            job.setenv("WANDB_MODE", "online")
            assert choose_mode(WandbSettings(), "there") == "online"
    with server(200, {"data": {"viewer": None}}) as url:
        assert chosen(monkeypatch, url) == "offline"
        assert "does not know the API key" in caplog.messages[-1]
    with server(401, {}) as url:
        assert chosen(monkeypatch, url) == "offline"
        assert "refuses the API key (HTTP 401)" in caplog.messages[-1]
        with pytest.raises(UserError, match=r"mode=online: .*refuses the API key"):
            choose_mode(WandbSettings(mode="online"), "there")
    assert chosen(monkeypatch, "http://127.0.0.1:9") == "offline"  # nobody listens there
    assert "does not answer" in caplog.messages[-1]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert chosen(monkeypatch, "http://127.0.0.1:9") == "disabled"


def test_a_key_from_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert tracking._netrc_key("127.0.0.1") == "secret"
    assert tracking._netrc_key("api.wandb.ai") is None


def test_a_server_that_never_answers_delays_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with silent_server() as url:
        assert chosen(monkeypatch, url) == "offline"
    assert time.monotonic() - started < 30  # the promise to users; the probe gives up after five seconds


def inspect(run: Path) -> dict[str, Any]:
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    command = [WANDB, "leet", "inspect", "--summary", "--json", str(file)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout))


def records(run: Path) -> str:
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    command = [WANDB, "leet", "inspect", "--json", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def train(cwd: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    flags = [item for item in overrides if item == "-m"]
    command = [sys.executable, "-m", "busi_lab.train", *flags, *FAST, *(item for item in overrides if item != "-m")]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_an_offline_run_holds_what_a_dashboard_needs(phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tags = "logger.wandb.tags=[first,second]"
    done = train(tmp_path, f"data.root={phantom_root}", tags, "logger.wandb.notes=why", f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("W&B is offline") == 1
    summary, wandb = read_summary(run), inspect(run)
    assert summary.wandb == {"id": (run / "wandb/id").read_text().strip(), "group": None, "directory": "wandb"}
    assert (wandb["run_id"], wandb["state"], wandb["exit_code"]) == (summary.wandb["id"], "finished", 0)
    assert (wandb["project"], wandb["name"], wandb["notes"]) == ("busi-lab", "custom_cnn-seed0", "why")
    assert wandb["config"]["split_digest"] == summary.split["digest"]
    assert wandb["config"]["model"]["name"] == "custom_cnn"
    found = wandb["summary"]
    for name in ("accuracy", "f1", "auroc", "loss"):
        assert found[f"test/{name}"] == pytest.approx(summary.metrics[f"test/{name}"])
        assert found[f"best/val/{name}"] == pytest.approx(summary.metrics[f"val/{name}"])
    assert found["parameters"] == summary.parameters
    assert found["images_per_second"] == pytest.approx(summary.images_per_second)
    log = records(run)
    for key in ("test/predictions", "test/confusion_matrix", "test/roc", "test/pr", "test/worst_mistakes", "optim/lr"):
        assert key in log, key
    assert '"job_type":"train"' in log
    assert '"tags":["first","second"]' in log


def test_masks_are_shown_in_training_and_after_the_test(phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("task=multitask", "model=mobilenet_unet", "model.weights=none", "logger.wandb.mask_scans=2")
    done = train(tmp_path, f"data.root={phantom_root}", *settings, f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr
    assert "W&B is lost" not in done.stdout
    log = records(run)
    for key in ("val/masks", "test/masks_worst", "test/masks_median", "test/masks_best", "test/confusion_matrix"):
        assert key in log, key
    files = list((run / "wandb").glob("offline-run-*/files/media/images/mask/val/*.png"))
    assert len(files) == 4  # two scans, each with the true and the predicted mask, shown once in two epochs


def test_sweeps_group_their_runs_and_mark_failures(phantom_root: Path, tmp_path: Path) -> None:
    done = train(tmp_path, "-m", f"data.root={phantom_root}", "data.batch_size=4,0")
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("W&B is offline") == 1
    (sweep,) = (tmp_path / "sweeps").iterdir()
    good, bad, report = inspect(sweep / "batch_size4"), inspect(sweep / "batch_size0"), inspect(sweep / "comparison")
    assert (good["exit_code"], bad["exit_code"]) == (0, 1)
    assert bad["summary"]["error"] == "data.batch_size=0: expected more than 0"
    assert len({good["run_id"], bad["run_id"], report["run_id"]}) == 3
    for run in ("batch_size4", "batch_size0", "comparison"):
        assert f'"run_group":"{sweep.name}"' in records(sweep / run)
    log = records(sweep / "comparison")
    assert '"job_type":"report"' in log
    assert "report/runs" in log
    assert "report/table1_metrics" in log


def test_a_run_that_dies_in_training_is_marked_failed(phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = train(
        tmp_path, f"data.root={phantom_root}", "optim.name=sgd", "optim.lr=1e30", f"hydra.run.dir={run}", "seed=3"
    )
    assert done.returncode == 2
    assert inspect(run)["exit_code"] == 1
    assert read_summary(run).wandb is not None


def test_the_command_of_a_wandb_agent(phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent runs ``busi-train KEY=VALUE ...`` and names the run by WANDB_RUN_ID."""
    monkeypatch.setenv("WANDB_RUN_ID", "agent123")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep456")
    run = tmp_path / "run"
    done = train(tmp_path, "optim.lr=0.003", "seed=1", f"data.root={phantom_root}", f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr
    wandb = inspect(run)
    assert wandb["run_id"] == "agent123"
    assert wandb["config"]["optim"]["lr"] == 0.003


def test_a_run_goes_on_when_wandb_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracking.WandbRun(WandbSettings(), "offline", tmp_path, "name", "train", {})

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("the service is gone")

    real = run._run
    monkeypatch.setattr(run, "_run", type("Broken", (), {"log": broken, "finish": broken, "id": "x", "group": None})())
    run.log_epoch({"epoch": 0, "lr": 0.1})
    run.finish(failed=False)
    real.finish()


def test_a_sweep_does_not_hand_an_agents_run_id_to_its_jobs(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agent123")
    assert train(tmp_path, "-m", f"data.root={phantom_root}", "seed=0,1").returncode == 0
    identifiers = {path.read_text() for path in tmp_path.glob("sweeps/*/*/wandb/id")}
    assert len(identifiers) == 3
    assert "agent123\n" not in identifiers


def test_an_unwritable_wandb_folder(phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "wandb").write_text("in the way")
    done = train(tmp_path, f"data.root={phantom_root}", f"hydra.run.dir={run}")
    assert done.returncode == 2
    assert "wandb cannot be written to" in done.stderr
    assert "set logger=csv" in done.stderr


@pytest.mark.parametrize("logger", ["tensorboard", "mlflow"])
def test_other_loggers_say_what_to_install(phantom_root: Path, tmp_path: Path, logger: str) -> None:
    package = {"tensorboard": "tensorboard", "mlflow": "mlflow"}[logger]
    try:
        __import__(package)
    except ImportError:
        done = train(tmp_path, f"data.root={phantom_root}", f"logger={logger}")
        assert done.returncode == 2
        assert package in done.stderr
    else:
        done = train(tmp_path, f"data.root={phantom_root}", f"logger={logger}", f"hydra.run.dir={tmp_path / 'run'}")
        assert done.returncode == 0, done.stderr


def test_an_offline_evaluation(phantom_root: Path, tmp_path: Path) -> None:
    done = train(tmp_path, f"data.root={phantom_root}", "logger=none", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    settings = ("explain=gradcam", "logger=wandb", "logger.wandb.mode=offline", "hydra.run.dir=result")
    command = [sys.executable, "-m", "busi_lab.evaluate", "run=run", *settings]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "W&B is lost" not in done.stdout
    result = tmp_path / "result"
    summary, wandb = read_summary(result), inspect(result)
    assert summary.wandb == {"id": (result / "wandb/id").read_text().strip(), "group": None, "directory": "wandb"}
    assert (wandb["name"], wandb["state"], wandb["exit_code"]) == ("custom_cnn-on-busi", "finished", 0)
    for name in ("accuracy", "f1", "gradcam_energy"):
        assert wandb["summary"][f"test/{name}"] == pytest.approx(summary.metrics[f"test/{name}"])
    log = records(result)
    for key in ("test/predictions", "test/confusion_matrix", "test/gradcam", '"job_type":"eval"'):
        assert key in log, key
