"""Every error line that the page explains is still in the code."""

import ast
import re

from tests.documents.pages import ROOT

_VALUE = "\0"


def templates() -> set[str]:
    """Every text of the package, with a mark for each value in it."""
    found: set[str] = set()
    for path in (ROOT / "busi_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (item.value if isinstance(item, ast.Constant) else _VALUE for item in node.values)
                found.add("".join(map(str, parts)))
    return found


def pattern(line: str) -> re.Pattern[str]:
    """A line of the page as a pattern: what stands between its dots stands in one text, in this order."""
    return re.compile(".*".join(re.escape(part) for part in line.split("...")), re.DOTALL)


def explained() -> list[str]:
    text = (ROOT / "busi_lab/troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def test_every_line_of_the_page_is_in_the_code() -> None:
    known = templates()
    lines = explained()
    assert len(lines) > 60 and len(set(lines)) == len(lines)
    assert all(len(line.replace("...", "").strip()) > 12 for line in lines)  # more than dots
    vanished = [line for line in lines if not any(pattern(line).search(text) for text in known)]
    assert vanished == []


def test_a_line_that_is_in_no_text_would_be_found() -> None:
    known = templates()
    assert not any(pattern("data.root is not set: ask your ...").search(text) for text in known)
