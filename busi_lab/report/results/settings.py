"""The configuration that repeats of one experiment share, and what differs between experiments."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from busi_lab.config import with_later_keys
from busi_lab.run_directory import CONFIG, SOURCE_CONFIG, Run

Settings = Mapping[str, str]
"""Full key to value in words, such as ``optim.lr`` to ``0.0001``; what is null is left out."""

_REPEATS = frozenset({"seed", "split.seed", "split.fold"})
_ELSEWHERE = frozenset(
    {
        *("name", "run", "run_dir", "command", "resume", "trust", "test", "sweep", "logger", "callbacks.last"),
        *("data.root", "data.labels", "data.cache_dir", "data.num_workers", "split.manifest"),
    }
)  # paths, trackers, workers and the cache, which change no figure; a run's data and name are compared anyway
_FILES = frozenset({"split.groups", "split.exclude"})  # of which the folder does not matter


def settings_of(run: Run) -> Settings | None:
    """All that a run was configured with but seeds, fold, paths, logger, workers and cache.

    Of an evaluation, that of the run that was evaluated. Keys that an older version did not know have their default.

    Returns:
        None where the configuration is missing or damaged.
    """
    path = run.path / CONFIG
    if run.summary.source:  # older evaluations did not take the run's configuration along
        path = run.path / SOURCE_CONFIG
        path = path if path.is_file() else run.path.parent / str(run.summary.source.directory) / CONFIG
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache(maxsize=1 << 15)
def _read(path: Path, changed: int, size: int) -> Settings | None:
    """The settings in a file, which is parsed once for as long as it does not change."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (ValueError, yaml.YAMLError):
        return None
    if not isinstance(content, dict) or "trainer" not in content:
        return None
    found = {key: value for key, value in _flat(with_later_keys(content)).items() if not _is_left_out(key)}
    shortened = ((key, value.rpartition("/")[2] if key in _FILES else value) for key, value in found.items())
    return _once(tuple(sorted(shortened)))


@lru_cache(maxsize=1 << 15)
def _once(items: tuple[tuple[str, str], ...]) -> Settings:
    """One object for equal settings, as repeats have them by the thousand."""
    return dict(items)


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster, where it is there


def _flat(node: Mapping[str, Any], above: str = "") -> dict[str, str]:
    found = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{above}{key}."))
        elif value is not None:
            words = value.rpartition(".")[2] if key == "_target_" and isinstance(value, str) else value
            found[f"{above}{key}"] = _number(words) if isinstance(words, float) else str(words)
    return found


def _number(value: float) -> str:
    """Short where that is exact: ``0.0001`` for 1e-4, all digits where six are too few."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _is_left_out(key: str) -> bool:
    parts = key.split(".")
    if key in _REPEATS or parts[-1] in ("dirpath", "save_dir"):
        return True
    return any(".".join(parts[: i + 1]) in _ELSEWHERE for i in range(len(parts)))


def differences(settings: Sequence[Settings | None]) -> list[str]:
    """The keys that do not have one value in all of ``settings``, sorted; unknown ones say nothing."""
    known = [item for item in settings if item is not None]
    keys = sorted({key for item in known for key in item})
    return [key for key in keys if len({item.get(key) for item in known}) > 1]


def in_words(settings: Settings | None, keys: Sequence[str], most: int | None = None) -> str:
    """``optim.lr=0.0001, scheduler.name=cosine`` for the ``keys``, at most ``most`` of them."""
    if settings is None:
        return "configuration unknown"
    shown = [f"{key}={settings.get(key, 'null')}" for key in keys]
    more = len(shown) - most if most is not None else 0
    return ", ".join([*shown[:most], f"{more} more"] if more > 0 else shown)
