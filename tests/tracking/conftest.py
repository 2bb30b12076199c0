import sys
from pathlib import Path

import doubles
import pytest


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, wherever the tests run."""
    for name in (
        *("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_RUN_ID"),
        *("WANDB_RUN_GROUP", "WANDB_DATA_DIR", "BUSI_LAB_JOB"),
    ):
        monkeypatch.setenv(name, "")  # so that what a tracker sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> doubles.Recorder:
    """W&B's client, replaced by one that notes what it is told."""
    client = doubles.Recorder()
    monkeypatch.setitem(sys.modules, "wandb", client)
    return client


@pytest.fixture
def result(tmp_path: Path) -> doubles.Result:
    """A multitask result of four scans, two of them mistaken, with maps of one method."""
    return doubles.made_result(tmp_path)
