"""``busi-app``: what it refuses, in one line, before anything is served."""

import socket
import sys
from pathlib import Path

import pytest

from busi_lab.app.models import common_classes, load_models
from busi_lab.app.server import bind
from busi_lab.errors import UserError
from busi_lab.run_directory import BEST_CHECKPOINT
from tests.inference.small_runs import make_classifier, save_run
from tests.programs import outcome


def test_without_gradio_it_says_what_to_install(trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, line = outcome("serve", str(trained["joint"]), "--port", "0")
    assert code == 2
    assert line.endswith("pip install 'busi-lab[app]'")


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"--host 127.0.0.1 --port {port}: cannot be had \(Address already in use\)"
        ):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host nowhere\.invalid --port 1"):
        bind("nowhere.invalid", 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: RUN"),
        (("nowhere",), "nowhere: no such folder"),
        (("--port", "70000", "nowhere"), "--port 70000: expected 0 to 65535"),
        (("--max-megabytes", "0", "nowhere"), "--max-megabytes 0: expected at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[str, ...], said: str) -> None:
    code, line = outcome("serve", *arguments)
    assert (code, said in line) == (2, True), line


def test_a_broken_run_is_named(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", make_classifier())
    (run / BEST_CHECKPOINT).write_bytes(b"cut")
    with pytest.raises(UserError, match=str(run)):
        load_models([run], "cpu")


def test_models_of_other_classes_cannot_share_a_folder(tmp_path: Path) -> None:
    ours, other = load_models(
        [save_run(tmp_path / name, make_classifier()) for name in ("ours", "other")], "cpu", check_learnt=False
    )
    other.predictor.classes = ("cyst", "solid", "healthy")
    with pytest.raises(UserError, match="--save DIR: other is of cyst, solid, healthy, and ours of benign"):
        common_classes([ours, other], "--save DIR")
