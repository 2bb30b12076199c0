"""busi-train: fit, validate the best epoch, test; one run, or a sweep with ``-m``."""

import math
import os
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from busi_lab import sweep
from busi_lab.config import config_dir, parse_config
from busi_lab.errors import UserError, exit_on_user_error, one_line
from busi_lab.run_directory import SUMMARY, read_summary

OmegaConf.register_new_resolver("busi_sweep", sweep.directory_name, replace=True)


def train(config: DictConfig) -> float:
    """Carry out one run.

    Args:
        config: composed from ``conf/train.yaml``.

    Returns:
        The validation objective of the best epoch.

    Raises:
        UserError: an input is wrong, or the run directory holds a finished run.
    """
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    parsed = parse_config(resolved)
    directory = Path(parsed.run_dir)
    if (directory / SUMMARY).exists() and read_summary(directory).status == "finished":
        raise UserError(f"{directory} holds a finished run; choose another hydra.run.dir or remove that folder")
    from busi_lab.experiment import run_experiment  # torch and its company take seconds: not for --help

    summary = run_experiment(parsed, resolved)
    return float(summary.metrics[summary.objective["metric"]])


_entered: list[str] = []
_rejected: list[UserError] = []  # Hydra would print a second line for an error that leaves the job


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")
def _job(config: DictConfig) -> float:
    _entered.append(str(config.run_dir))
    try:
        return train(config)
    except UserError as error:
        sweep.record_failure(Path(config.run_dir), error)
        _rejected.append(error)
        return math.nan


def main() -> None:
    """Console script ``busi-train``: exit code 0, 1 for a bug or a failed job of a sweep, 2 for a wrong input."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with exit_on_user_error():
        try:
            _job()
        except OverrideParseException as error:
            raise UserError(
                f"{error.override}: {one_line(error).split(' See https')[0]}; a value with brackets, commas, "
                "spaces or ~ needs two pairs of quotes, as in \"KEY='benign (1)'\""
            ) from None
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(one_line(error).split(" See https")[0]) from None
        except OSError as error:
            if _entered:  # not Hydra making its directory
                raise
            raise UserError(
                f"{error.filename}: cannot be written ({error.strerror}); set hydra.run.dir or hydra.sweep.dir "
                "to a writable folder"
            ) from None
        if _rejected:
            raise _rejected[0]
        sys.exit(sweep.conclude())


if __name__ == "__main__":
    main()
