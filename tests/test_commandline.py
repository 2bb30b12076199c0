"""Command lines as an agent of W&B's sweeps writes them, and Hydra's own options beside them."""

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser

from busi_lab.commandline import hydra_errors, understood
from busi_lab.config import config_dir, parse_config
from busi_lab.errors import UserError
from busi_lab.train import main


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["--model.backbone=resnet18", "--data.batch_size=8.0"], ["model.backbone=resnet18", "data.batch_size=8.0"]),
        (["--model.weights=None", "data.subset=None"], ["model.weights=null", "data.subset=null"]),
        (["--optim.lr", "-1e-3", "--name", "a b"], ["optim.lr=-1e-3", "name=a b"]),
        (["--experiment=paper/mobilenet", "--run=runs/a"], ["experiment=paper/mobilenet", "run=runs/a"]),
        (["--experiment", "paper/mobilenet"], ["experiment=paper/mobilenet"]),
    ],
)
def test_what_agents_write_becomes_overrides(written: list[str], meant: list[str]) -> None:
    assert understood(written, get_args_parser()) == meant


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "--cfg job --resolve seed=1",
        "-m seed=1,2 --multirun",
        "--multi seed=1",
        "--config-dir folder experiment=mine",
        "--config-dir=folder",
        "--info searchpath",
        "--version",
        "-c job --package data",
        "--mutlirun seed=1",  # a slip stays one
        "~callbacks.last +trainer.precision=16-true",
        "--experimental-rerun file",
    ],
)
def test_hydras_own_options_stay(line: str) -> None:
    assert understood(line.split(), get_args_parser()) == line.split()


def test_whole_numbers_and_null_are_taken_as_meant() -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        given = ["data.batch_size=8.0", "trainer.max_epochs=3.0", "seed=2.0", "data.subset=4.0", "model.weights=null"]
        config = compose("train", [*given, "+trainer.limit_train_batches=1.0", "run_dir=x", "logger=none"])
        half = compose("train", ["data.batch_size=8.5", "run_dir=x", "logger=none"])
    parsed = parse_config(config)
    found = (parsed.data.batch_size, parsed.trainer["max_epochs"], parsed.seed, parsed.data.subset)
    assert found == (8, 3, 2, 4)
    assert all(isinstance(value, int) for value in found)
    assert config.data.batch_size == 8 and isinstance(config.data.batch_size, int)  # as config.yaml will say
    assert isinstance(parsed.trainer["limit_train_batches"], float)  # all batches, not one
    assert parsed.model.weights == "none"
    with pytest.raises(UserError, match=r"data.batch_size: Value '8.5' of type 'float' could not be converted"):
        parse_config(half)


def test_a_sweep_has_no_single_configuration_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-m", "sweep=paper_classifiers", "--cfg", "job"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: --cfg shows the configuration of one job; leave out -m, and give one value to each key\n"
    )


def test_a_closed_pipe_is_no_error_of_the_disk() -> None:
    with pytest.raises(BrokenPipeError), hydra_errors(lambda: False):
        raise BrokenPipeError
