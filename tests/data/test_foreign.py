"""Files of other formats are named, with what makes them readable."""

import gzip
from pathlib import Path

import pytest

from busi_lab.data.reading import read_image
from busi_lab.data.scan import UnreadableImageError
from busi_lab.errors import UserError
from busi_lab.inference.scans import list_scans

NIFTI = bytes(344) + b"n+1\0" + bytes(200)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "scan.nii.gz",
            gzip.compress(NIFTI, mtime=0),
            "the file is NIfTI; expected PNG, .* ITK-SNAP, 3D Slicer or SimpleITK",
        ),
        ("scan.png", NIFTI, "the file is NIfTI"),
        ("scan.nii", b"short", "the file is NIfTI"),
        ("scan.gz", b"\x1f\x8b cut", "the content is not an image"),
        ("scan.nrrd", b"NRRD0004\n", "the file is NRRD"),
        ("scan", b"NRRD0005\n", "the file is NRRD"),
        ("scan.mhd", b"ObjectType = Image\nNDims = 2\n", "the file is MetaImage"),
        ("scan.mha", b"NDims = 2\nElementDataFile = LOCAL\n", "the file is MetaImage"),
        ("cine.mp4", b"\0\0\0\x18ftypmp42", r"the file is a video \(MP4\); .* ffmpeg -i FILE frame%04d.png"),
        ("cine", b"RIFF\0\0\0\0AVI LIST", r"the file is a video \(AVI\)"),
        ("scan.png", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS: git lfs pull fetches"),
        ("scan.png", b"/annex/objects/MD5-s5--9\n", "a pointer of git-annex: git annex get fetches the picture"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=message):
        read_image(tmp_path / name)


def test_a_folder_of_volumes_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(UserError, match=r"no scan found; a.nrrd: the file is NRRD; expected PNG, .*SimpleITK"):
        list_scans([tmp_path])
