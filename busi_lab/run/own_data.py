"""The data and the split that a finished run was trained with, from its configuration. Nothing here imports torch."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import CONFIG
from busi_lab.summary import Summary


def own_data(run: Path, summary: Summary) -> Any:
    """The group ``data`` of a run, with the folders as they are on record.

    Raises:
        UserError: as :func:`saved_group`.
    """
    saved = saved_group(run, "data")
    if saved.get("root"):
        saved.root = summary.data.root or saved.root  # absolute, whatever folder this is called from
        if saved.get("copies_before_split"):  # that folder holds them, and is read as it was written
            saved.update(copies_before_split=0, labels=None, label_map=None, lesion_values=None, layout="auto")
    for item in saved.get("sources") or ():
        link = Path(str(summary.data.root), str(item.name))  # to the folder, see busi_lab/data/mix.py
        if link.is_symlink():
            item.root = str(link.resolve())
    if saved.get("labels"):
        saved.labels = summary.data.labels or saved.labels
    return saved


def saved_group(run: Path, group: str) -> Any:
    """A group of the configuration that a run was trained with.

    Raises:
        UserError: it cannot be read, or refers to something else.
    """
    try:
        saved: Any = OmegaConf.load(run / CONFIG)
        if not OmegaConf.is_dict(saved) or not OmegaConf.is_dict(saved.get(group)):
            reason = f"it has no group {group}"
        elif "${" in OmegaConf.to_yaml(saved[group]):  # a run's own is resolved; a foreign one could ask for anything
            reason = f"the group {group} refers to something else by ${{...}}"
        else:
            return saved[group]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        reason = one_line(error)[:120]
    raise UserError(f"{run / CONFIG} cannot be read ({reason}); name the data with data= and split= instead")
