"""The page in a real browser: it needs nothing but this computer, and does what a reader asks of it."""

import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import dicom, noise, write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.app,
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra app is not installed"),
    pytest.mark.skipif(
        CHROMIUM is None or importlib.util.find_spec("playwright") is None, reason="needs Chromium and playwright"
    ),
]


@dataclass
class Served:
    """A server that was started, its address, the folder of its temporary files, and that of corrections."""

    process: subprocess.Popen[str]
    address: str
    temporary: Path
    kept: Path


@contextmanager
def served(folder: Path, *runs: Path, options: tuple[str, ...] = ()) -> Iterator[Served]:
    (folder / "tmp").mkdir()
    command = [sys.executable, "-m", "busi_lab.serve", *map(str, runs), "--port", "0", "--save", str(folder / "kept")]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "serving" in line, line
            address = line.partition(" at ")[2].partition(" ")[0]
            yield Served(process, address, folder / "tmp", folder / "kept")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def server(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("app")
    with served(folder, trained["joint"], trained["classifier"], options=("--max-megabytes", "2")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(server: Served, browser: Any) -> Iterator[Any]:
    """The page, at a phone's width; a request to anywhere else, an error of a script, or a policy's fails the test."""
    context = browser.new_context(viewport={"width": 400, "height": 850}, accept_downloads=True)
    found, wrong = context.new_page(), []

    def decide(route: Any) -> None:
        if route.request.url.startswith(server.address):
            route.continue_()
        else:
            wrong.append(route.request.url)
            route.abort()

    context.route(lambda url: not url.startswith(("data:", "blob:")), decide)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda told: wrong.append(told.text) if "Content Security Policy" in told.text else None)
    found.set_default_timeout(20_000)
    found.goto(server.address)
    found.wait_for_selector("input[type=file]", state="attached")
    yield found
    context.close()
    assert wrong == []


def choose(page: Any, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)


def test_a_scan_is_dropped_and_shown(page: Any, server: Served, tmp_path: Path) -> None:
    pixels = np.repeat(np.repeat(noise(8, 10), 20, axis=0), 20, axis=1)
    path = dicom(tmp_path / "a&b.dcm", pixels, PatientName="Doe^Jane", PatientID="4711", Modality="CT")
    choose(page, path)
    page.wait_for_selector(".busi-model")
    assert page.locator(".busi-model").filter(visible=True).count() == 2
    assert "a&b.dcm" in page.locator(".busi-title").inner_text()
    assert "The modality is CT, expected US." in page.locator(".busi-warnings").first.inner_text()
    assert "Doe" not in page.content()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    slider = page.get_by_label("range slider for Outline, % opaque")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    opacity = "getComputedStyle(document.querySelector('.busi-outline')).opacity"
    page.wait_for_function(f"{opacity} === '0.7'")
    page.get_by_role("button", name="Make JSON").click()
    with page.expect_download() as download:
        page.locator("a[download='result.json']").click()
    content = Path(download.value.path()).read_text()
    assert '"modality": "CT"' in content
    assert not any(word in content for word in ("Doe", "4711", "1.2.3"))


def test_a_mask_is_drawn_and_saved(page: Any, server: Served, tmp_path: Path) -> None:
    choose(page, write(tmp_path / "scan.png", np.repeat(np.repeat(noise(8, 10), 20, axis=0), 20, axis=1)))
    page.wait_for_selector(".busi-model")
    page.get_by_role("tab", name="Correct").click()
    page.get_by_role("button", name="Take the scan").click()
    page.wait_for_selector(".busi-drawing[data-started]")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Outline, filled").click()
    box = page.locator(".busi-drawing canvas").bounding_box()
    corners = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
    for number, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    page.get_by_label("malignant", exact=True).check()
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_selector(".busi-said")
    with (server.kept / "labels.csv").open() as file:
        (row,) = csv.DictReader(file)
    mask = np.asarray(Image.open(server.kept / row["mask_file"]))
    expected = np.zeros((160, 200), bool)
    expected[40:120, 50:150] = True
    assert row["label"] == "malignant"
    assert (mask != expected).mean() < 0.01


def test_wrong_files_are_complained_of_in_a_line(page: Any, tmp_path: Path) -> None:
    fake = tmp_path / "scan.png"
    fake.write_bytes(b"\x7fELF" + bytes(500))
    choose(page, fake)
    page.wait_for_selector(".busi-complaint")
    assert "expected PNG, JPEG, BMP, TIFF or DICOM" in page.locator(".busi-complaint").inner_text()


def test_a_large_file_is_refused(page: Any, server: Served, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(3_000_000))
    choose(page, large)
    page.get_by_text("maximum").first.wait_for()
    assert not [path for path in server.temporary.rglob("*") if path.is_file() and path.stat().st_size > 2_500_000]


def test_phantoms_and_the_card_are_there_in_dark(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    page.reload()
    page.get_by_role("button", name="Phantom: malignant").click()
    page.wait_for_selector(".busi-model")
    assert page.locator("body.dark").count() == 1
    assert "leaks" in page.content()


def test_nothing_is_left_when_visitors_leave_and_the_server_ends(
    trained: dict[str, Path], browser: Any, tmp_path: Path
) -> None:
    with served(tmp_path, trained["classifier"]) as own:
        context = browser.new_context()
        page = context.new_page()
        page.goto(own.address)
        page.wait_for_selector("input[type=file]", state="attached")
        choose(page, write(tmp_path / "scan.png", noise(60, 80)))
        page.wait_for_selector(".busi-model")
        assert list(own.temporary.rglob("scan.png"))
        context.close()
        end = time.monotonic() + 20
        while left := [path for path in own.temporary.rglob("*") if path.is_file() and "phantoms" not in path.parts]:
            assert time.monotonic() < end, left
            time.sleep(0.2)
    assert own.process.returncode == 0
    assert list(own.temporary.iterdir()) == []
