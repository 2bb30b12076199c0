"""Directories that one process holds: who may take over from whom, and what the one that lost it may still do."""

import errno
import json
import os
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from busi_lab import locks
from busi_lab.errors import UserError
from busi_lab.files import write_json
from busi_lab.locks import LOCK, OWNER, Owner, is_held, locked
from busi_lab.run.checkpoints import AtomicCheckpointIO
from busi_lab.slurm import JobState, SlurmError
from busi_lab.summary import Summary, write_summary


@pytest.fixture
def no_kernel_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)


def leave(folder: Path, owner: Owner) -> None:
    """The file of a process that was killed, or is elsewhere."""
    (folder / LOCK).touch()
    (folder / OWNER).write_text(json.dumps(asdict(owner)))


ELSEWHERE = Owner("another-host", 1, "1", "pid:[1]", token="theirs")


def test_the_owner_is_named_with_and_without_locks_of_the_kernel(tmp_path: Path) -> None:
    with locked(tmp_path):
        found = Owner(**json.loads((tmp_path / OWNER).read_text()))
        assert (found.process, found.started != "", found.job) == (os.getpid(), True, "")
        assert is_held(tmp_path)
    assert not (tmp_path / OWNER).exists() and not is_held(tmp_path)
    leave(tmp_path, ELSEWHERE)  # killed: the kernel has given its lock back, and is believed
    assert not is_held(tmp_path)
    with locked(tmp_path):
        pass


@pytest.mark.usefixtures("no_kernel_locks")
def test_a_dead_process_of_this_host_is_followed_and_a_living_one_never(tmp_path: Path) -> None:
    here = Owner.this_process()
    with locked(tmp_path):
        held = f"in use by another process .owner: process {os.getpid()} of host"
        with pytest.raises(UserError, match=held), locked(tmp_path):
            pass
        assert is_held(tmp_path)
    for owner, free in (
        (replace(here, started="1"), True),  # its number was given to this process since
        (here, False),  # living, paused or not, however old
        (replace(here, space="pid:[1]", started="1"), False),  # of another container, whose numbers say nothing here
        (ELSEWHERE, False),
    ):
        leave(tmp_path, owner)
        assert is_held(tmp_path) is not free
        if free:
            with locked(tmp_path):
                assert json.loads((tmp_path / OWNER).read_text())["token"] != owner.token
        else:
            with pytest.raises(UserError, match=r"; remove .* if that is dead"), locked(tmp_path):
                pass
    (tmp_path / OWNER).write_text("another-host 1 1")  # of an older version
    with pytest.raises(UserError, match="owner: another process; remove"), locked(tmp_path):
        pass
    assert is_held(tmp_path)


@pytest.mark.usefixtures("no_kernel_locks")
@pytest.mark.parametrize(
    ("known", "free"),
    [
        (None, True),  # ended long ago
        (JobState("CANCELLED"), True),
        (JobState("RUNNING", restarts=2), True),  # requeued since
        (JobState("RUNNING", restarts=1), False),
        (JobState("SUSPENDED", restarts=1), False),
        (JobState("COMPLETING", restarts=1), False),
        (SlurmError("SLURM does not answer"), False),
    ],
)
def test_a_slurm_job_is_followed_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Any, free: bool
) -> None:
    def job_state(identifier: str) -> Any:
        assert identifier == "17"
        if isinstance(known, Exception):
            raise known
        return known

    monkeypatch.setattr(locks, "job_state", job_state)
    monkeypatch.setattr(locks, "cluster", lambda: "ours")
    leave(tmp_path, replace(ELSEWHERE, cluster="ours", job="17", restarts=1))
    assert is_held(tmp_path) is not free
    leave(tmp_path, replace(ELSEWHERE, cluster="theirs", job="17", restarts=1))  # whose numbers say nothing here
    assert is_held(tmp_path)


def test_a_requeued_job_follows_itself_on_another_node() -> None:
    environment = {"SLURM_CLUSTER_NAME": "ours", "SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1"}
    here = Owner.this_process(environment)
    before = replace(ELSEWHERE, cluster="ours", job="17")
    assert before.is_dead(here)
    assert not replace(before, restarts=1).is_dead(here)


@pytest.mark.parametrize("kernel", [True, False])
def test_whoever_has_lost_a_directory_writes_no_more(
    tmp_path: Path, request: pytest.FixtureRequest, kernel: bool
) -> None:
    """As a job that comes back from a node that was cut off, while another one goes on with its work."""
    if not kernel:
        request.getfixturevalue("no_kernel_locks")
    run = tmp_path / "run"
    with locked(run):
        write_json(run / "a.json", {})
        leave(run, ELSEWHERE)
        for write in (
            lambda: write_json(run / "a.json", {"late": True}),
            lambda: write_summary(run, Summary("finished")),
            lambda: AtomicCheckpointIO().save_checkpoint({}, run / "checkpoints/last.ckpt"),
        ):
            with pytest.raises(UserError, match=r"taken over by another process .*another-host.*; this one writes no"):
                write()
        write_json(tmp_path / "b.json", {})  # not below it
    assert json.loads((run / "a.json").read_text()) == {}
    assert json.loads((run / OWNER).read_text())["token"] == "theirs"  # and is not given back for them
    assert not (run / "checkpoints").exists()


def test_one_may_wait_for_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    seen = []

    def follow() -> None:
        with locked(tmp_path, wait="somebody makes it"):
            seen.append((tmp_path / "made").exists())

    with locked(tmp_path):
        thread = threading.Thread(target=follow)
        thread.start()
        while not caplog.messages:
            thread.join(0.02)
        (tmp_path / "made").touch()
    thread.join()
    assert seen == [True]
    assert caplog.messages == ["somebody makes it"]
