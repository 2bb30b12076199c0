"""What is known of an image of a dataset before a file is opened, and what may be wrong with it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CaseFiles:
    """The files of one image, relative to the dataset's root, with forward slashes.

    Attributes:
        case_id: unique in a dataset: in BUSI's layout the file name without ending, such as ``benign (1)``, beside a
            ``labels.csv`` the file's path without ending, such as ``site1/scan_3``.
        label: a class of the dataset, or empty where it is not known.
        image: the scan.
        masks: the files whose union is the lesion mask.
        mask_known: whether there are mask files, or need not be, because scans of this class have no lesion.
        patient: empty where it is not known.
        further: name and value of each further column of ``labels.csv``.
        spacing: millimetres between rows and between columns, as the table says; None where it does not.
        lesion_values: what is lesion in the mask files, see :func:`busi_lab.data.masks.read_mask`.
    """

    case_id: str
    label: str
    image: str
    masks: tuple[str, ...]
    mask_known: bool = field(default=False, kw_only=True)
    patient: str = field(default="", kw_only=True)
    further: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    spacing: tuple[float, float] | None = field(default=None, kw_only=True)
    lesion_values: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Defect:
    """Something wrong with a dataset folder: where, and what was expected and found."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"
