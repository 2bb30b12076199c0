"""A package of a user's own, as if it were installed."""

import importlib
import re
import sys
from pathlib import Path

import pytest


def recipe(language: str) -> str:
    """The first block of a language where the page on networks shows how one is added."""
    text = (Path(__file__).parents[1] / "busi_lab/models/README.md").read_text(encoding="utf-8")
    found = re.search(rf"## A network of your own\n.*?```{language}\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, group: str, *names: str) -> None:
    """Write a module with entry points, and let this process find it.

    Args:
        folder: to write to.
        monkeypatch: undoes it.
        module: its name.
        source: its text.
        group: of the entry points.
        names: of entry points, as ``name`` for the module or ``name=Class`` for something in it.
    """
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    described = folder / f"{module}-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    pairs = (item.partition("=") for item in names)
    lines = [f"{name} = {module}{':' if inside else ''}{inside}" for name, _, inside in pairs]
    (described / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()
