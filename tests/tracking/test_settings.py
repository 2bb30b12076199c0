"""The settings of W&B are checked before anything is imported or written."""

import subprocess
import sys
from typing import Any

import pytest

from busi_lab.errors import UserError
from busi_lab.tracking.settings import wandb_settings


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
        wandb_settings(settings)
    assert message in str(caught.value)


def test_checking_needs_neither_the_client_nor_torch() -> None:
    code = (
        "import sys; from busi_lab import train, sweep, tracking, compare\n"
        "tracking.check_trackers({'wandb': {}, 'csv': None})\n"
        "tracking.check_trackers({'other': {'_target_': 'lightning.pytorch.loggers.CSVLogger'}})\n"
        "assert not {'wandb', 'torch', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
