"""``dataset.json``: how a dataset folder says its own classes, that its scans are synthetic, or what is wrong with it.

Without that file, or without classes in it, the classes are BUSI's.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busi_lab.classes import BUSI, Classes
from busi_lab.errors import UserError, one_line
from busi_lab.suggestions import one_of

DATASET = "dataset.json"

_ROLES = ("positive", "without_lesion")
_KEYS = ("classes", *_ROLES, "synthetic", "invalid")
CLASS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def read_classes(root: Path) -> Classes:
    """The classes of a dataset folder.

    ``dataset.json`` holds ``{"classes": ["cyst", "solid", "healthy"], "positive": "solid", "without_lesion":
    "healthy"}``; the roles may be left out or null.

    Raises:
        UserError: the file cannot be read, has another key, or names no sound classes.
    """
    return _read(root).classes


def is_synthetic(root: Path) -> bool:
    """Whether ``dataset.json`` says ``"synthetic": true``, as that of phantoms does.

    Raises:
        UserError: as :func:`read_classes`.
    """
    return _read(root).synthetic


def invalid_because(root: Path) -> str:
    """What ``dataset.json`` says under ``invalid``: why figures on these data are wrong; empty for other data.

    Raises:
        UserError: as :func:`read_classes`.
    """
    return _read(root).invalid


@dataclass(frozen=True)
class _Content:
    """What the file says."""

    classes: Classes = BUSI
    synthetic: bool = False
    invalid: str = ""


def _read(root: Path) -> _Content:
    path = root / DATASET
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _Content()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({one_line(error)[:80]}); correct or remove it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object with the key classes, found {str(content)[:40]!r}")
    if unknown := sorted(content.keys() - set(_KEYS)):
        raise UserError(one_of(f"{path}: unknown key {unknown[0]}", unknown[0], _KEYS, "known keys"))
    synthetic = content.get("synthetic", False)
    if not isinstance(synthetic, bool):
        raise UserError(f"{path}: synthetic is {str(synthetic)[:40]!r}; expected true or false")
    invalid = content.get("invalid", "")
    if not isinstance(invalid, str):
        raise UserError(f"{path}: invalid is {str(invalid)[:40]!r}; expected a reason, as a text")
    if "classes" not in content and not content.keys() & set(_ROLES):
        return _Content(BUSI, synthetic, invalid)
    names = content.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) and CLASS_NAME.fullmatch(name) for name in names):
        raise UserError(
            f"{path}: classes is {str(names)[:60]!r}; expected a list of names of letters, digits, dashes and "
            'underscores, as ["cyst", "solid"]'
        )
    if len(names) < 2 or len({name.lower() for name in names}) < len(names):
        raise UserError(f"{path}: classes is {names}; expected at least two names, each once")
    roles = [content.get(key) for key in _ROLES]
    for key, role in zip(_ROLES, roles, strict=True):
        if role is not None and role not in names:
            raise UserError(f"{path}: {key} is {role!r}; expected null or one of {', '.join(names)}")
    if roles[0] is not None and roles[0] == roles[1]:
        raise UserError(f"{path}: positive and without_lesion are both {roles[0]}; expected different classes")
    return _Content(Classes(tuple(names), *roles), synthetic, invalid)
