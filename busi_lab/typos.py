"""Mistyped keys and options of the command line: Hydra's errors with the nearest name and the choices."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from busi_lab.checking import groups_of
from busi_lab.errors import one_line
from busi_lab.suggestions import nearest, one_of


def explain(
    error: Exception, schema: type, folders: Sequence[Path], compose: Callable[[], Mapping[str, Any]]
) -> str | None:
    """A line for an unknown key or option of the command line, or several values; None for any other error.

    Args:
        error: Hydra's.
        schema: of the configuration, a dataclass with a dataclass for each group.
        folders: of configurations: ours, and that of ``--config-dir``.
        compose: the configuration of the chosen groups alone; empty where that is none.
    """
    if missing := getattr(error, "missing_cfg_file", None):  # of MissingConfigException; Hydra is not imported here
        group, slash, option = str(missing).removesuffix(".yaml").partition("/")
        options = _options(group, folders)
        if group == "split" and (fold := option.removeprefix("fold/")) != option:
            return f"split={option}: no such option; set split=grouped_kfold split.fold={fold}"
        return one_of(f"{group}={option}: no such option", option, options, "choices") if slash and options else None
    if several := re.match(r"Ambiguous value for argument '([^']+)'", one_line(error)):
        key, _, values = several.group(1).partition("=")
        return f"{key}={values}: several values; add -m for a run with each, or write one list as '{key}=[{values}]'"
    match = re.match(r"Could not override '([^']+)'", one_line(error))
    return _unknown_key(match.group(1), schema, folders, compose) if match else None


def _options(group: str, folders: Sequence[Path]) -> list[str]:
    """All options of a group, as they are typed."""
    found = {
        path.relative_to(folder / group).with_suffix("").as_posix()
        for folder in folders
        for path in (folder / group).rglob("*.yaml")
    }
    return sorted(found)


def _unknown_key(key: str, schema: type, folders: Sequence[Path], compose: Callable[[], Mapping[str, Any]]) -> str:
    group, _, name = key.rpartition(".")
    if group == "trainer":
        arguments = _trainer_arguments()
        if name in arguments:
            return f"{key}: not set here; add this argument of Lightning's Trainer as +{key}=VALUE"
        hint = nearest(name, arguments)
        return f"{key}: unknown key; {hint or 'expected an argument of the Trainer of Lightning, as +trainer.NAME'}"
    if (key + ".").startswith("search.space."):
        new = key if key != "search.space" else "search.space.GROUP.KEY"
        return f"{key}: the space lacks this key; add it as +{new}={{choices: [A, B]}} or {{low: A, high: B}}"
    if key.startswith("search.") and not compose().get("search"):
        return f"{key}: no search is chosen; add search=default"
    groups = _groups(schema, folders)
    if group in ("model", "task", "launcher", "search") and isinstance(chosen := compose().get(group), Mapping):
        known = [str(each) for each in chosen if each != "_target_"]
        what = f"known keys of {chosen['name']}" if "name" in chosen else "known keys"
        if others := _with_key(group, name, folders):
            having = " and ".join(f"{group}={each}" for each in others)
            return (
                f"{key}: unknown key; {having} {'has' if len(others) == 1 else 'have'} it; {what}: {', '.join(known)}"
            )
        return one_of(f"{key}: unknown key", name, known, what)
    if key.startswith("data.phantom."):
        return f"{key}: unknown key; phantoms belong to data=phantom"
    if group in groups:
        return one_of(f"{key}: unknown key", name, groups[group], "known keys")
    names = [*(item.name for item in fields(schema)), *groups]
    names += [path.name for folder in folders for path in folder.iterdir() if path.is_dir()]
    names += [f"{name}.{each}" for name, known in groups.items() for each in known]
    hint = nearest(key, dict.fromkeys(names))
    return f"{key}: unknown key; {hint or '--help lists groups and keys'}"


def _groups(schema: type, folders: Sequence[Path]) -> dict[str, list[str]]:
    """The keys of each group: those of the schema, else those that its files set."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/*.yaml")):
            keys = _keys_of(path)
            known = found.setdefault(path.parent.name, [])
            known += [key for key in keys if key not in known]
    for name, kind in groups_of(schema).items():
        if name != "model":  # each network has its own
            found[name] = [each.name for each in fields(kind)]
    return found


def _keys_of(path: Path) -> list[str]:
    """The keys that a file of a group sets; none of a damaged one, which is not what was asked."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return [str(key) for key in content if key != "defaults"] if isinstance(content, dict) else []


def _with_key(group: str, name: str, folders: Sequence[Path]) -> list[str]:
    """The options of a group whose own file sets a key."""
    files = (path for folder in folders for path in (folder / group).glob("*.yaml"))
    return sorted({path.stem for path in files if name in _keys_of(path)})


def _trainer_arguments() -> list[str]:
    from lightning import Trainer  # seconds, for one message

    return [name for name in inspect.signature(Trainer.__init__).parameters if name != "self"]
