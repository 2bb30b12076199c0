"""How many of what, in words."""

from busi_lab.plurals import counted


def test_one_is_no_plural() -> None:
    assert [counted(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
