"""The Dockerfile: pinned images, a plain user, offline, extras and files that exist."""

import re
from pathlib import PurePosixPath

from tests.documents.pages import ROOT, project

_TEXT = (ROOT / ".github/Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in re.sub(r"^#.*\n", "", _TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    if line.strip()
]
ARGUMENTS = dict(value.split("=", 1) for name, value in INSTRUCTIONS if name == "ARG")


def stages() -> dict[str, list[tuple[str, ...]]]:
    """The instructions of each stage, its FROM first."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for instruction in INSTRUCTIONS:
        if instruction[0] == "FROM":
            found[instruction[1].rpartition(" AS ")[2]] = current = []
        if found:
            current.append(instruction)
    return found


def test_every_image_is_pinned() -> None:
    for name, (start, *_) in stages().items():
        image = re.sub(r"\$\{(\w+)\}", lambda found: ARGUMENTS[found[1]], start[1].rpartition(" AS ")[0])
        assert image in stages() or re.fullmatch(r"[\w/.-]+:\d+\.\d+\.\d+[\w.-]*", image), (name, image)
        assert "latest" not in image


def test_the_image_runs_as_a_plain_user_in_a_folder_of_its_own() -> None:
    names, values = zip(*stages()["image"], strict=True)
    assert values[names.index("USER")] == "1000"
    assert names.index("USER") > max(number for number, name in enumerate(names) if name == "RUN")
    assert values[names.index("WORKDIR")] == "/work"
    assert list(stages())[-1] == "image"  # the last stage is the one that is built
    assert "useradd --create-home --uid 1000 busi" in _TEXT


def test_nothing_is_fetched_or_sent_at_run_time() -> None:
    assert "HF_HUB_OFFLINE=1" in _TEXT and "WANDB_MODE=offline" in _TEXT
    assert not re.search(r"^(CMD|ENTRYPOINT) .*(curl|wget|pip)", _TEXT, re.MULTILINE)


def test_extras_and_versions_are_those_of_the_package() -> None:
    package = project()["project"]
    assert set(ARGUMENTS["EXTRAS"].split(",")) <= set(package["optional-dependencies"])
    for name in ("torch", "torchvision"):
        bound = next(item for item in package["dependencies"] if re.match(rf"{name}[>=]", item))
        assert _TEXT.count(f'"{bound}"') == 1
    lowest = package["requires-python"].removeprefix(">=")
    assert tuple(map(int, ARGUMENTS["PYTHON"].split("."))) >= tuple(map(int, lowest.split(".")))


def test_the_context_has_all_that_a_wheel_is_made_of() -> None:
    lines = (ROOT / ".github/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    settings = project()
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], settings["project"]["readme"]]
    needed += [*settings["project"]["license-files"], settings["tool"]["hatch"]["version"]["path"]]
    assert {PurePosixPath(name).parts[0] for name in needed} | {"pyproject.toml"} == kept


def test_the_page_names_the_arguments() -> None:
    page = (ROOT / ".github/docker.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)) == set(ARGUMENTS)
    assert f"| {ARGUMENTS['PYTHON']} |" in page and f"`{ARGUMENTS['EXTRAS']}`" in page
