"""A subfolder of images for each class (ImageFolder of torchvision), also within ``train``, ``val`` and ``test``.

There are no masks and no patients. The name of such an outer folder is kept as the column ``part``: splits are drawn
here. Files that are named as masks (``..._mask.png``) are left out.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from busi_lab.data.importers.item import Item
from busi_lab.data.importers.source import Source, class_name
from busi_lab.data.names import is_image_name, parse_image_name

PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def read(source: Source) -> Iterator[Item]:
    """The images of a folder for each class.

    Raises:
        UserError: no image lies in a subfolder.
    """
    images = [name for name in source.files if is_image_name(PurePosixPath(name)) and "/" in name]
    if not images:
        raise source.refuse("a subfolder of images for each class")
    parted = all(name.split("/")[0].lower() in PARTS for name in images)
    for name in images:
        folders = PurePosixPath(name).parts[:-1]
        part, inner = (folders[0], folders[1:]) if parted else ("", folders)
        if not inner:
            source.leave(name, "lies in no folder of a class")
            continue
        if parse_image_name(name.rsplit("/", 1)[-1]).mask:
            source.leave(name, "is named as a mask; busi layout or format pairs has masks")
            continue
        label = class_name(inner[0])
        if not label:
            source.leave(name, f"the folder '{inner[0]}' cannot name a class: the label is left empty")
        further = {"part": part} if parted else {}
        yield Item(str(PurePosixPath(name).with_suffix("")), name, label=label, further=further)
