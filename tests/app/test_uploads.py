"""Files that somebody sends: what is read of them, what is left out, what is said of those that hold no scan."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_lab.app import uploads
from busi_lab.app.uploads import open_upload, read_frame
from busi_lab.errors import UserError
from tests.data.image_files import dicom, noise, write


def test_a_cine_loop_is_read_frame_by_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [noise(8, 10) for _ in range(3)]
    first, *others = map(Image.fromarray, frames)
    path = write(tmp_path / "loop.tif", first, save_all=True, append_images=others)
    upload = open_upload(path, "loop.tif")
    assert (upload.frames, upload.several, upload.cut) == (3, True, False)
    assert np.array_equal(read_frame(upload, 2).pixels, frames[2])
    with pytest.raises(UserError, match="frame 4 is not there"):
        read_frame(upload, 3)
    monkeypatch.setattr(uploads, "MOST_FRAMES", 2)
    assert (open_upload(path, "loop.tif").frames, open_upload(path, "loop.tif").cut) == (2, True)


def test_of_a_patient_nothing_is_kept(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", noise(8, 10), PatientName="Doe^Jane", PatientID="4711", Modality="US")
    upload = open_upload(path, "a.dcm")
    scan = read_frame(upload, 0)
    assert scan.origin.modality == "US"
    assert scan.origin.sop_instance_uid is None
    assert not any(word in f"{upload}{scan.origin}" for word in ("Doe", "4711", "1.2.3"))


def test_spacing_is_what_the_file_says_else_what_a_person_says(tmp_path: Path) -> None:
    silent = open_upload(write(tmp_path / "a.png", noise(8, 10)), "a.png")
    assert read_frame(silent, 0, "0,1").spacing == (0.1, 0.1)
    assert read_frame(silent, 0, " ").spacing is None
    with pytest.raises(UserError, match="expected millimetres per pixel"):
        read_frame(silent, 0, "wide")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x7fELF" + bytes(200), "scan.png: .*expected PNG"),
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n", "scan.png: "),
    ],
)
def test_what_is_no_scan_is_said_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "sent"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        open_upload(path, "..\\..\\etc/scan.png")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("choose another file")
    assert "etc" not in str(caught.value)
