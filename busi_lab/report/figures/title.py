"""Words of a table that figures and sections share."""

from busi_lab.report.results.tables import Table


def headline(table: Table) -> str:
    """Number, task, data, protocol and number of test images."""
    images = "unknown number of" if table.test_images is None else table.test_images
    return f"Table {table.number}: {table.task} on {table.dataset}, {table.protocol}, {images} test images"


def selection(table: Table, shown: int) -> str:
    """How the runs in a group of panels were chosen, with a space behind it; nothing of a single run."""
    count = len(table.rows)
    if count == 1:
        return ""
    few = f": the best {shown} of {count} runs by {table.metric}" if count > shown else ""
    return f"Best by validation first{few}. "
