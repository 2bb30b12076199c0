"""Settings of Weights & Biases, and their check."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from busi_lab.errors import UserError
from busi_lab.suggestions import one_of

_MODES = ("auto", "online", "offline", "disabled")


@dataclass
class WandbSettings:
    """Key ``wandb`` of the group ``logger``.

    Attributes:
        project: W&B project.
        entity: user or team, None for the account's default.
        group: groups runs; None for the sweep's name.
        name: of the run; None for the experiment's with its seed.
        tags: at most 64 characters each.
        notes: free text.
        mode: ``auto`` is online where an API key is configured and the server answers, else offline.
        log_model: store ``best.ckpt`` as an artifact; None for only when online.
        mask_epochs: epochs between two panels of validation scans with their masks.
        mask_scans: scans in such a panel.
    """

    project: str = "busi-lab"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    mode: str = "auto"
    log_model: bool | None = None
    mask_epochs: int = 5
    mask_scans: int = 8


def wandb_settings(group: Mapping[str, Any]) -> WandbSettings:
    """Check the settings of W&B.

    Raises:
        UserError: an unknown key, or a value that W&B would refuse.
    """
    known = [item.name for item in fields(WandbSettings)]
    if unknown := [key for key in group if key not in known]:
        raise UserError(one_of(f"logger.wandb.{unknown[0]}: unknown key", unknown[0], list(known), "known keys"))
    settings = WandbSettings(**group)
    if settings.mode not in _MODES:
        raise UserError(f"logger.wandb.mode={settings.mode}: expected {', '.join(_MODES)}")
    for key in ("project", "entity", "group", "name"):
        value = getattr(settings, key)
        forbidden = r"[/\\#?%:]" if key in ("project", "entity") else r"[\x00-\x1f]"
        if value is None and key != "project":
            continue
        if not isinstance(value, str) or not value or len(value) > 128 or re.search(forbidden, value):
            raise UserError(
                f"logger.wandb.{key}={value!r}: W&B takes 1 to 128 characters"
                + (r" without / \ # ? % :" if key in ("project", "entity") else "")
            )
    for key in ("mask_epochs", "mask_scans"):
        if not isinstance(getattr(settings, key), int) or getattr(settings, key) < 1:
            raise UserError(f"logger.wandb.{key}={getattr(settings, key)}: expected a whole number of at least 1")
    if not isinstance(settings.tags, list):
        raise UserError(f"logger.wandb.tags={settings.tags!r}: expected a list, as in logger.wandb.tags=[first,second]")
    for tag in settings.tags:
        if not isinstance(tag, str) or not 0 < len(tag) <= 64:
            raise UserError(f"logger.wandb.tags: W&B takes tags of 1 to 64 characters, found {tag!r}")
    return settings
