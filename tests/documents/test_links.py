"""The pages: short front page, links that lead somewhere, every page reached from the front page."""

import re
from pathlib import Path

import pytest

from tests.documents.pages import PAGES, ROOT, prose, shell_lines

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def local_links(page: Path) -> list[tuple[Path, str]]:
    """File and anchor of each link that stays in the repository."""
    found = []
    for link in _LINK.findall(prose(page)):
        if not re.match(r"\w+:", link):
            path, _, anchor = link.partition("#")
            found.append(((page.parent / path).resolve() if path else page, anchor))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in local_links(page):
        assert target.exists(), f"{page.relative_to(ROOT)}: no {target}"
        assert not anchor or anchor in anchors(target), f"{page.relative_to(ROOT)}: {target.name} has no #{anchor}"


def test_every_page_is_reached_from_the_front_page() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            waiting += [target for target, _ in local_links(page)]
    assert set(PAGES) - reached == set()


def test_the_front_page_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_modules_that_pages_call_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"python -m (tests\.\w+)", page.read_text(encoding="utf-8")):
            assert (ROOT / f"{name.replace('.', '/')}.py").is_file(), f"{page.relative_to(ROOT)}: {name}"


def test_targets_of_make_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for page in PAGES:
        for line in shell_lines(page):
            if line.startswith("make "):
                assert line.split()[1] in targets, f"{page.relative_to(ROOT)}: {line}"
