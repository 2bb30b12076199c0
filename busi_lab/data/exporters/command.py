"""``busi-data export``."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from busi_lab.data.index import Case, Index, index_dataset
from busi_lab.data.options import DatasetOptions
from busi_lab.errors import UserError
from busi_lab.files import new_folder, write_rows
from busi_lab.plurals import counted

Writer = Callable[[Index, Sequence[Case], Path], Iterator[tuple[str, str]]]

RECORD = "export.csv"


def export_dataset(name: str, root: str, out: Path, options: DatasetOptions) -> None:
    """Write the scans of a dataset whose masks are known in another format, and say what was left out.

    Args:
        name: of :data:`busi_lab.data.formats.EXPORT_FORMATS`.
        root: dataset folder.
        out: new or empty folder, not within ``root``.
        options: how the dataset is to be read.

    Raises:
        UserError: the dataset has a defect or no known mask, or ``out`` cannot be written or lies in it.
    """
    write: Writer = import_module(f"busi_lab.data.exporters.{name}").write
    index = index_dataset(root, options=options)
    if index.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out {out}: lies in {index.root}, which is only read; choose another place")
    cases = [case for case in index.cases if case.mask_known]
    if not cases:
        raise UserError(f"{index.root}: expected scans with a known mask to export, found none")
    with new_folder(out) as folder:
        written = dict(write(index, cases, folder))
        rows = [
            {"case_id": case.case_id, "written": written.get(case.case_id, ""), "note": _note(case)}
            for case in index.cases
        ]
        write_rows(folder / RECORD, rows, ("case_id", "written", "note"))
    left = len(index.cases) - len(cases)
    print(f"{counted(len(cases), 'scan')} of {index.root} are in {out}; {RECORD} there has a line for each")
    if left:
        print(f"{counted(left, 'scan')} without a known mask left out: other programs would take it for an empty one")


def _note(case: Case) -> str:
    return "" if case.mask_known else "no known mask: left out"
