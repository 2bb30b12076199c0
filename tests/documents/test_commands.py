"""Every command of the documents is understood as it stands there."""

import re
from pathlib import Path

import pytest

from busi_lab.run_directory import CONFIG, LAST_CHECKPOINT
from tests.documents.pages import PAGES, ROOT, commands, inline_commands
from tests.documents.understanding import alternatives, complaint, programs, stop_before_work, words

pytestmark = pytest.mark.slow

_OF_A_PACKAGE = re.compile(r"model=small|experiment=best")
"""What the reader writes or a search leaves behind; ``test_extensions.py`` and ``sweep/search`` test them."""

_PLACEHOLDERS = {"FORMAT": "coco", "NAME": "coco"}
"""Words for what must be one of some choices."""


def found_on(page: Path) -> list[tuple[list[str], bool]]:
    """Our commands on a page, and whether each is whole: in the text, arguments may be left out."""
    blocks = [(words(line), True) for line in commands(page)]
    texts = [(found, False) for line in inline_commands(page) for found in alternatives(line)]
    return [item for item in blocks + texts if not _OF_A_PACKAGE.search(" ".join(item[0]))]


@pytest.fixture
def place(tmp_path: Path, phantom_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to call commands in, with data, a run that was cut, and the configuration that a page shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUSI_ROOT", "data/busi")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/busi").symlink_to(phantom_root)
    cut = tmp_path / "runs/2026-11-22_10-15-00-123456"
    (cut / "checkpoints").mkdir(parents=True)
    for name in (CONFIG, LAST_CHECKPOINT):
        (cut / name).touch()
    page = (ROOT / "conf/experiment/README.md").read_text(encoding="utf-8")
    shown = re.search(r"```yaml\n(# @package _global_\n.*?)```", page, re.DOTALL)
    assert shown
    (tmp_path / "my_conf/experiment").mkdir(parents=True)
    (tmp_path / "my_conf/experiment/mine.yaml").write_text(shown[1])


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_before_work(monkeypatch)
    wrong = []
    for command, whole in found_on(page):
        assert command[0] in programs(), command
        message = complaint([_PLACEHOLDERS.get(word, word) for word in command], capsys)
        if message and (whole or "the following arguments are required" not in message):
            wrong.append(f"{' '.join(command)}: {message}")
    assert wrong == []


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("busi-predict --run runs/joint scan.png --jason -", "unrecognized arguments: --jason -"),
        ("busi-train trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean max_epochs?"),
        ("busi-train -m sweep=paper_all data.image_sise=32", "data.image_sise: unknown key"),
        ("busi-train -m sweep=paper_all data.image_size=-1", "data.image_size=-1: expected 32, "),
        ("busi-train search=default search.trails=3", "search.trails: unknown key"),
        ("busi-eval run=x stress=ultrasond", "stress"),
        ("busi-data cheque data/busi", "argument COMMAND: invalid choice: 'cheque'"),
    ],
)
def test_a_wrong_command_would_be_found(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_before_work(monkeypatch)
    assert complaint(words(line), capsys).startswith(f"error: {message}")


def test_there_are_commands_of_every_program() -> None:
    found = {command[0] for page in PAGES for command, _ in found_on(page)}
    assert set(programs()) <= found
