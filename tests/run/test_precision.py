"""``trainer.precision=auto`` is decided once, by time, and written down; ``compile`` says what it lacks."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from busi_lab.errors import UserError
from busi_lab.run import precision
from busi_lab.run.precision import FILE, decide_precision
from busi_lab.run_directory import SWEEP_VARIABLE
from busi_lab.summary import read_summary
from tests.inference.small_runs import make_classifier
from tests.programs import outcome

CPU = {"accelerator": "cpu", "devices": 1}


def take(monkeypatch: pytest.MonkeyPatch, full: float, mixed: float) -> None:
    """Let a step take so many seconds in either precision, on a processor that has both."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(precision, "_step", lambda network, image, is_mixed: mixed if is_mixed else full)


@pytest.mark.parametrize(("mixed", "expected"), [(0.6, "bf16-mixed"), (0.97, "32-true"), (1.5, "32-true")])
def test_the_faster_one_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mixed: float, expected: str) -> None:
    take(monkeypatch, 1.0, mixed)
    assert decide_precision(make_classifier(), 4, CPU, tmp_path / "run") == expected
    assert not list(tmp_path.iterdir())


def test_without_bfloat16_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    take(monkeypatch, 1.0, 0.1)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert decide_precision(make_classifier(), 4, CPU, tmp_path) == "32-true"


def test_measuring_changes_neither_the_network_nor_what_is_drawn_next(tmp_path: Path) -> None:
    task = make_classifier()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert decide_precision(task, 4, CPU, tmp_path) in ("32-true", "bf16-mixed")
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())


def test_the_first_job_of_a_sweep_decides_for_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SWEEP_VARIABLE, "sweep")
    take(monkeypatch, 1.0, 0.5)
    assert decide_precision(make_classifier(), 4, CPU, tmp_path / "job0") == "bf16-mixed"
    take(monkeypatch, 1.0, 2.0)
    assert decide_precision(make_classifier(), 4, CPU, tmp_path / "job1") == "bf16-mixed"
    assert precision._agree(tmp_path / FILE, {"precision": "32-true"}) == "bf16-mixed"  # that has measured meanwhile
    assert json.loads((tmp_path / FILE).read_text())["precision"] == "bf16-mixed"
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(UserError, match=r"json: expected the precision of this sweep, .* found None; remove it"):
        decide_precision(make_classifier(), 4, CPU, tmp_path / "job2")


def test_several_processes_on_cpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"trainer\.precision=auto: .* found trainer\.devices=2 on CPUs; choose 32-true"
    ):
        decide_precision(make_classifier(), 4, {"accelerator": "cpu", "devices": 2}, tmp_path)


def test_what_was_decided_is_written_to_the_run(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(monkeypatch, 1.0, 0.5)
    run = tmp_path / "run"
    fast = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none", "trainer.max_epochs=1")
    arguments = (f"data.root={phantom_root}", *fast, "trainer.precision=auto", "trainer.accelerator=cpu")
    assert outcome("train", *arguments, f"hydra.run.dir={run}") == (0, "")
    assert OmegaConf.load(run / "config.yaml").trainer.precision == "bf16-mixed"
    assert read_summary(run).precision == "bf16-mixed"


def test_a_network_that_cannot_be_compiled_is_told_in_one_line(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("no compiler\nand more")

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: setattr(self, "_compiled_call_impl", fail))
    fast = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none", "compile=true")
    arguments = (f"data.root={phantom_root}", *fast, "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path / 'run'}")
    code, error = outcome("train", *arguments)
    assert code == 2
    assert error == "compile=true: this network is not compiled here (no compiler and more); set compile=false"
