"""The pages of the documentation, and what stands in them."""

import re
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
_FOLDERS = ("conf", "busi_lab", "tests", ".github")
PAGES = sorted(
    [ROOT / "README.md", *(page for folder in _FOLDERS for page in (ROOT / folder).rglob("*.md"))],
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def shell_lines(page: Path) -> list[str]:
    """The lines of a page's blocks of commands."""
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [line for language, block in blocks if language in ("", "sh", "bash") for line in block.splitlines()]


def commands(page: Path) -> list[str]:
    """Our commands among them, also those that a container is to run."""
    inside = (re.sub(r"^docker run .* busi-lab:\w+ ", "", line) for line in shell_lines(page))
    return [line for line in inside if line.startswith("busi-")]


def inline_commands(page: Path) -> list[str]:
    """Commands with arguments that stand in the text itself."""
    return re.findall(r"`(busi-\w+ [^`]+)`", prose(page))


def project() -> dict[str, Any]:
    """What ``pyproject.toml`` says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
