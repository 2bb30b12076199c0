"""A forked process is as good as a new one."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from busi_lab.summary import read_summary
from busi_lab.sweep import fork_server
from busi_lab.sweep.executors import local
from busi_lab.sweep.fork_server import LOST, ForkServer, ServerError
from tests.golden.record import describe
from tests.programs import Programs, is_alive


def probe(argv: list[str]) -> None:
    """Say what this process finds; a program for the tests below, which the server knows by ``main``."""
    import __main__

    if argv[0] == "state":
        print(Path.cwd(), os.environ.get("PROBE"), os.environ.get("HOME"), torch.get_num_threads(), *argv[1:])
        print(f"main={__main__.__name__} argv={sys.argv[1:]} session={os.getsid(0) == os.getpid()}")
        print(f"bad_fork={torch.cuda._is_in_bad_fork()} cuda={torch.cuda.is_initialized()}")
        print(f"threads={len(list(Path('/proc/self/task').iterdir()))}")
    elif argv[0] == "variable":
        print(os.environ[argv[1]])
    elif argv[0] == "read":
        print(os.read(int(argv[1]), 10).decode())
    elif argv[0] == "sleep":
        time.sleep(60)
    elif argv[0] == "fail":
        raise ZeroDivisionError("as asked")
    else:
        sys.exit(int(argv[0]))


main = probe
Sweep = Callable[..., tuple[int, str, str]]
HERE = "tests.sweep.test_fork_server"


def run(programs: Programs, tmp_path: Path, *arguments: str, **settings: Any) -> tuple[int, str]:
    path = tmp_path / "output"
    with path.open("wb") as output:
        process = programs.server.start(HERE, arguments, output=output, cwd=tmp_path, **settings)
    return process.wait(60), path.read_text()


def test_a_process_has_what_it_was_given_and_nothing_of_the_server(programs: Programs, tmp_path: Path) -> None:
    environment = {"PROBE": "yes", "HOME": None, "OMP_NUM_THREADS": "3"}
    code, output = run(programs, tmp_path, "state", "x", environment=environment)
    assert code == 0
    assert output.splitlines()[:3] == [
        f"{tmp_path} yes None 3 x",
        f"main={HERE} argv=['state', 'x'] session=True",
        "bad_fork=False cuda=False",
    ]
    _, output = run(programs, tmp_path, "state", environment={"OMP_NUM_THREADS": "1"})
    assert output.splitlines()[0].split()[1:] == ["None", os.environ["HOME"], "1"]
    assert output.splitlines()[3] == "threads=1"


def test_exit_codes_errors_and_signals(programs: Programs, tmp_path: Path) -> None:
    assert run(programs, tmp_path, "0") == (0, "")
    assert run(programs, tmp_path, "3") == (3, "")
    code, output = run(programs, tmp_path, "fail")
    assert code == 1
    assert output.endswith("ZeroDivisionError: as asked\n")
    sleeping = programs.server.start(HERE, ["sleep"])
    assert sleeping.poll() is None
    with pytest.raises(TimeoutError):
        sleeping.wait(0.01)
    sleeping.terminate()
    assert sleeping.wait(60) == -signal.SIGTERM
    sleeping.send_signal(signal.SIGKILL)  # it has ended: nothing happens


def test_files_are_inherited_under_their_numbers(programs: Programs, tmp_path: Path) -> None:
    ends = os.pipe()
    os.write(ends[1], b"hello")
    assert run(programs, tmp_path, "read", str(ends[0]), keep=[ends[0]]) == (0, "hello\n")
    for end in ends:
        os.close(end)


def test_what_libraries_set_when_they_are_imported_is_there(programs: Programs, tmp_path: Path) -> None:
    assert run(programs, tmp_path, "variable", "NO_ALBUMENTATIONS_UPDATE")[1] == "1\n"  # albumentations would call home
    assert run(programs, tmp_path, "variable", "BIG", environment={"BIG": "x" * 400_000})[1] == "x" * 400_000 + "\n"


def test_a_process_outlives_its_server_and_nothing_more_is_started(tmp_path: Path) -> None:
    server = ForkServer()
    process = server.start(HERE, ["sleep"], cwd=tmp_path)
    assert process.pid is not None
    os.kill(server._process.pid, signal.SIGTERM)  # as to a whole tree of processes: it is for the jobs
    late = server.start(HERE, ["0"], cwd=tmp_path)
    assert late.wait(60) == 0
    os.kill(server._process.pid, signal.SIGKILL)
    server._reader.join(60)
    assert is_alive(process.pid)
    with pytest.raises(TimeoutError):
        process.wait(0.05)
    with pytest.raises(ServerError, match="it has died"):
        server.start(HERE, ["0"], cwd=tmp_path)
    process.terminate()
    assert process.wait(60) == LOST
    assert not is_alive(process.pid)
    server.close()


@pytest.mark.slow
def test_a_sweep_needs_no_server_and_gives_the_same_bytes(
    sweep: Sweep, programs: Programs, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> ForkServer:
        raise ServerError("it holds 2 threads")

    monkeypatch.setattr(local, "ForkServer", refuse)
    settings = ("model=timm", "model.backbone=test_efficientnet", "model.weights=none", "model.dropout=0.3")
    code, output, errors = sweep("seed=0", *settings, "augment=strong", "hydra.sweep.dir=sweep")
    assert code == 0, errors
    assert output.count("jobs start as new processes: the fork server does not serve, because it holds 2 threads") == 1
    (spawned,) = (summary.parent for summary in (tmp_path / "sweep").glob("*/summary.json"))
    assert read_summary(spawned).status == "finished"

    run = ("trainer=smoke", "data.image_size=32", f"data.root={phantom_root}", "augment=strong", "logger=none")
    programs.run("train", *run, *settings, f"hydra.run.dir={tmp_path / 'forked'}", cwd=tmp_path)
    assert describe(tmp_path / "forked") == describe(spawned)


def test_a_server_with_threads_refuses_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(fork_server, "PRELOADED", ())
    monkeypatch.setattr(fork_server, "_KEPT_BACK", ())
    monkeypatch.setattr(sys, "argv", ["fork_server", str(theirs.detach())])
    monkeypatch.setattr(Path, "iterdir", lambda self: [1, 2])
    monkeypatch.setattr(Path, "is_dir", lambda self: True)
    monkeypatch.setattr("hydra.core.plugins.Plugins.instance", lambda: None)
    fork_server.main()
    refusal = "it holds 2 threads, of which a fork would lose all but one"
    assert json.loads(ours.recv(4096)) == {"ready": False, "refusal": refusal}
    ours.close()
