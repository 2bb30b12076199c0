"""A command of the documents up to where its work would begin: options are parsed, configurations are checked."""

import argparse
import importlib
import shlex
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import DictConfig, OmegaConf

import busi_lab.evaluate
import busi_lab.sweep.launch
import busi_lab.sweep.search.search
import busi_lab.train
from busi_lab.config import parse_config, parse_eval_config
from tests.documents.pages import project

_HYDRA = ("busi-train", "busi-eval")


class Understood(BaseException):
    """The work of a command would begin here."""


def programs() -> dict[str, str]:
    """The module of each console script."""
    return {name: target.partition(":")[0] for name, target in project()["project"]["scripts"].items()}


def words(line: str) -> list[str]:
    """The words of a line of a shell, without its comment and what its output is piped to."""
    found = shlex.split(line, comments=True)
    return found[: found.index("|")] if "|" in found else found


def alternatives(line: str) -> list[list[str]]:
    """The commands that a line of the text stands for: ``--to onnx|openvino`` is two."""
    return [list(chosen) for chosen in product(*(word.split("|") for word in words(line)))]


def main_of(program: str) -> Callable[[list[str]], None]:
    """What a console script calls."""
    found: Callable[[list[str]], None] = importlib.import_module(programs()[program]).main
    return found


def stop_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our programs raise :class:`Understood` where their work would begin."""
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, _stopping(getattr(argparse.ArgumentParser, name)))
    monkeypatch.setattr(busi_lab.train, "train", _check(parse_config))
    monkeypatch.setattr(busi_lab.evaluate, "evaluate", _check(parse_eval_config))
    whole = busi_lab.sweep.launch.make_plan  # of many jobs the first and the last: all have the command's overrides
    monkeypatch.setattr(
        busi_lab.sweep.launch, "make_plan", lambda config, jobs, compose: whole(config, [jobs[0], jobs[-1]], compose)
    )
    monkeypatch.setattr(BasicSweeper, "validate_batch_is_legal", lambda *_: None)
    for module in (busi_lab.sweep.launch, busi_lab.sweep.search.search):
        monkeypatch.setattr(module, "make_executor", _stop)  # it comes when all jobs have been composed and checked


def _stopping(parse: Callable[..., Any]) -> Callable[..., Any]:
    def stopping(parser: argparse.ArgumentParser, *arguments: Any) -> Any:
        found = parse(parser, *arguments)
        if parser.prog in _HYDRA or any(action.dest == "overrides" for action in parser._actions):
            return found  # Hydra's own parser: the configuration is still to come
        raise Understood

    return stopping


def _check(parse: Callable[[DictConfig], object]) -> Callable[..., float]:
    def check(config: DictConfig, *_: object) -> float:
        resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        assert isinstance(resolved, DictConfig)
        for group in ("launcher", "search"):
            resolved.pop(group, None)
        parse(resolved)
        raise Understood

    return check


def _stop(*_: object) -> None:
    raise Understood


def complaint(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error line of a command that is not understood; empty where it is, after :func:`stop_before_work`."""
    capsys.readouterr()
    try:
        main_of(command[0])(command[1:])
    except Understood:
        return ""
    except SystemExit as ended:
        return "" if not ended.code else capsys.readouterr().err.strip()
    return "it ended without work"
