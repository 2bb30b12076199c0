from collections.abc import Callable
from pathlib import Path

import pytest

from busi_lab.sweep.executors import local
from tests.programs import Programs, call

Sweep = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sweep(
    programs: Programs,
    phantom_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Sweep:
    """Call ``busi-train -m`` with tiny jobs, forked from the tests' server; returns exit code, output and errors."""
    monkeypatch.setattr(local, "ForkServer", programs.lent)
    monkeypatch.chdir(tmp_path)
    fast = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none", f"data.root={phantom_root}")

    def run(*overrides: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = call("train", "-m", *fast, *overrides)
        return code, *capfd.readouterr()

    return run
