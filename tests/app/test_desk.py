"""What the page answers: HTML that holds nothing of a stranger's making, files, and nothing left behind."""

import json
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_lab.app.batch import MOST_FILES
from busi_lab.app.desk import Desk
from busi_lab.app.uploads import Upload
from busi_lab.app.visits import Visits
from busi_lab.errors import UserError
from tests.data.image_files import noise, write


def test_a_name_of_a_file_is_never_markup(desk: Desk, tmp_path: Path) -> None:
    sent = write(tmp_path / "sent.png", noise(40, 50))
    upload = desk.choose("a", sent, "../../<img src=x onerror=alert(1)>.png")
    shown = desk.look(upload, 0, "")
    assert "<img src=x" not in shown
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in shown
    assert ".." not in shown.partition("<div")[0]


def test_models_stand_side_by_side(desk: Desk, opened: Callable[[str], Upload]) -> None:
    shown = desk.look(opened("malignant"), 0, "0.1")
    assert shown.count('<article class="busi-model">') == 2
    assert shown.count('class="busi-outline"') == 1  # of the joint run alone
    assert shown.count('class="busi-heat"') == 2
    assert "0.1 mm per pixel" in shown
    cards = desk.cards()
    assert "95 % interval" in cards
    assert "Not a medical device" in cards


def test_files_say_the_same_as_the_page(desk: Desk, opened: Callable[[str], Upload]) -> None:
    upload = replace(opened("malignant"), name="<b>$x^2$.png")
    paths = {path.name: path for path in desk.papers("a", upload, 0, "")}
    assert sorted(paths) == ["mask-joint.png", "report.pdf", "result.json"]
    content = json.loads(paths["result.json"].read_text())
    joint, classifier = content["models"]
    assert joint["lesion_pixels"] == int(np.asarray(Image.open(paths["mask-joint.png"])).sum())
    assert classifier["class"] == max(classifier["calibrated_probabilities"], key=classifier["probabilities"].get)
    assert joint["sop_instance_uid"] is None
    assert (
        paths["report.pdf"].read_bytes().count(b"/Type /Page ")
        + paths["report.pdf"].read_bytes().count(b"/Type /Page\n")
        == 1
    )


def test_many_files_become_a_table_and_a_zip(desk: Desk, phantom_root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"MZ")
    good = phantom_root / "benign" / "benign (1).png"
    result = desk.batch("a", [(good, "=cmd.png"), (bad, "bad.png")], "", lambda share: None)
    assert [(row[0], row[2]) for row in result.rows] == [
        ("=cmd.png", "joint"),
        ("=cmd.png", "classifier"),
        ("bad.png", ""),
    ]
    assert "expected PNG" in result.rows[2][-1]
    with zipfile.ZipFile(result.archive) as archive:
        assert sorted(archive.namelist()) == ["001-cmd-png/mask-joint.png", "001-cmd-png/result.json", "results.csv"]
        assert "'=cmd.png" in archive.read("results.csv").decode()
    with pytest.raises(UserError, match=f"expected at most {MOST_FILES}"):
        desk.batch("a", [(good, "a.png")] * (MOST_FILES + 1), "", lambda share: None)


def test_what_a_visitor_sent_vanishes_when_the_last_who_sent_it_leaves(visits: Visits, tmp_path: Path) -> None:
    (tmp_path / "copies" / "x").mkdir(parents=True)
    sent = write(tmp_path / "copies" / "x" / "sent.png", noise(8, 10))
    example = write(tmp_path / "example.png", noise(8, 10))
    first, second = visits.take("first", sent), visits.take("second", sent)
    visits.take("second", example)
    visits.leave("first")
    assert (first.exists(), second.exists(), sent.exists()) == (False, True, True)
    assert (tmp_path / "copies" / "x").exists()
    visits.leave("second")
    assert (second.exists(), sent.exists(), (tmp_path / "copies" / "x").exists()) == (False, False, False)
    visits.leave("stranger")
    assert example.exists()


def test_what_others_have_sent_again_is_left_to_them(visits: Visits, desk: Desk) -> None:
    sent = visits._copies / "hash" / "scan.png"
    sent.parent.mkdir(parents=True)
    write(sent, noise(40, 50))
    desk.choose("first", sent, "scan.png")
    write(sent.with_name("again.png"), noise(40, 50)).replace(sent)  # as Gradio does: equal files, one path
    desk.arrive("second")
    desk.leave("first")
    upload = desk.choose("second", sent, "scan.png")
    desk.leave("second")
    assert not sent.exists()
    for again in (lambda: desk.choose("third", sent, "scan.png"), lambda: desk.look(upload, 0, "")):
        with pytest.raises(UserError, match=r"^scan.png: the file is not there any more; choose it again$"):
            again()


def test_requests_at_once_get_the_same_answers(desk: Desk, opened: Callable[[str], Upload]) -> None:
    uploads = [opened("benign"), opened("malignant")]
    expected = [desk.look(upload, 0, "") for upload in uploads]
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda number=number: found.update({number: desk.look(uploads[number % 2], 0, "")}))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == expected * 3
