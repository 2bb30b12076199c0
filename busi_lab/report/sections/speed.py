"""Which network answers how fast, how large it is, and what that costs in quality."""

from busi_lab.report.figures.speed import trade_off
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.speed import QUALITIES
from busi_lab.report.sections.section import Section, count, figure, without_empty, word


def speed(analysis: Analysis) -> list[Section]:
    """One section, where ``busi-bench`` has measured networks."""
    if analysis.speeds is None:
        return []
    titles = ["number", "network", "pixels", "ms", "ms, 95 %", "scans/s", "MB", "parameters (M)", *QUALITIES]
    lines = [
        [
            *(count(number), word(item.label), count(item.image_size)),
            *(figure(value, 1) for value in (*item.milliseconds, item.speed, item.megabytes)),
            figure(None if item.parameters is None else item.parameters / 1e6, 2),
            *(figure(item.quality.get(name)) for name in QUALITIES),
        ]
        for number, item in enumerate(analysis.speeds.networks, start=1)
    ]
    sentences = (
        f"Measured by busi-bench on {analysis.speeds.machine}: the network alone on one scan, median and 95th "
        "percentile, and busi-predict with all files written. Quality is that on validation images, which have chosen "
        "the best epoch; the figures of INT8 are those behind it.",
    )
    grid = without_empty(titles, lines)
    return [Section("How fast and how large", sentences, grids=(grid,), groups=(trade_off(analysis.speeds.networks),))]
