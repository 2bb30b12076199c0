"""Whether W&B is online, with servers that answer in many ways."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from busi_lab.errors import UserError
from busi_lab.tracking import mode
from busi_lab.tracking.mode import _netrc_key, choose_mode
from busi_lab.tracking.settings import WandbSettings


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
    assert _netrc_key("127.0.0.1") == "secret"
    assert _netrc_key("api.wandb.ai") is None


def test_a_server_that_never_answers_delays_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mode._PROBE_SECONDS <= 5  # the promise to users
    monkeypatch.setattr(mode, "_PROBE_SECONDS", 0.2)
    started = time.monotonic()
    with silent_server() as url:
        assert chosen(monkeypatch, url) == "offline"
    assert time.monotonic() - started < 5
