"""Damage sound files at random and read them: ``python -m tests.fuzz_reading SECONDS [SEED]``.

Guided by coverage where atheris is installed, else a plain loop. Reports executions, the slowest input and peak
memory. An input that raises anything but UnreadableImageError ends it; that one, and those that take two seconds or
lift the peak by 500 MB, are kept and named.
"""

import os
import random
import resource
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

with (
    atheris.instrument_imports(include=["PIL", "pydicom", "busi_lab.data.reading", "busi_lab.data.dicom"])
    if atheris
    else nullcontext()
):
    from busi_lab.data.reading import read_scans
    from busi_lab.data.scan import UnreadableImageError
    from tests.data.image_files import CHANGES, seeds

SECONDS_OF_AN_INPUT, MEGABYTES = 2.0, 500.0
FRAMES = 50  # of an input; a small file may hold many


class Fuzzer:
    """Reads damaged files and remembers what was worst."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.path = folder / "input"
        self.end = time.monotonic() + seconds
        self.seconds = seconds
        self.start_megabytes = self.megabytes = megabytes()
        self.executions = self.scans = self.refusals = 0
        self.slowest = 0.0

    def read(self, content: bytes, ending: str) -> None:
        path = self.path.with_suffix(ending)
        path.write_bytes(content)
        start = time.monotonic()
        try:
            for number, _ in enumerate(read_scans(path)):
                self.scans += 1
                if number == FRAMES:
                    break
        except UnreadableImageError as error:
            assert str(error).isprintable()
            self.refusals += 1
        except BaseException:
            self.keep(content, ending, "an exception")
            raise
        seconds = time.monotonic() - start
        self.executions += 1
        self.slowest = max(self.slowest, seconds)
        if seconds > SECONDS_OF_AN_INPUT:
            self.keep(content, ending, f"{seconds:.1f} seconds")
        peak = megabytes()
        if peak > max(self.start_megabytes + MEGABYTES, self.megabytes):
            self.megabytes = peak
            self.keep(content, ending, f"a peak of {peak:.0f} MB, {self.start_megabytes:.0f} MB at the start")

    def keep(self, content: bytes, ending: str, why: str) -> None:
        path = Path(tempfile.mkdtemp(prefix="fuzz-")) / f"input{ending}"
        path.write_bytes(content)
        print(f"{path}: {why}", flush=True)

    def report(self) -> None:
        print(
            f"{self.executions} inputs in {self.seconds:.0f} s: {self.scans} scans read, {self.refusals} refused; "
            f"slowest {self.slowest:.2f} s; peak memory {megabytes():.0f} MB of {self.start_megabytes:.0f} MB at first",
            flush=True,
        )


def megabytes() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def damage(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    for _ in range(draw.randint(1, 6)):
        if not content:
            break
        at, value = draw.randrange(len(content)), draw.randint(1, 255)
        kind = draw.randrange(len(CHANGES) + 3)
        if kind < len(CHANGES):
            content = CHANGES[kind](content, at, value)
        elif kind == len(CHANGES):  # numbers that overflow
            number = draw.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 50_000, 7_000])
            width = draw.choice([2, 4])
            word = (number & (256**width - 1)).to_bytes(width, draw.choice(["big", "little"]))
            content = content[:at] + word + content[at + width :]
        elif kind == len(CHANGES) + 1:
            content = content[:at] + draw.randbytes(draw.randint(1, 16)) + content[at + 16 :]
        else:
            other = draw.choice(others)
            content = content[:at] + other[draw.randrange(len(other)) :]
    return content


def loop(fuzzer: Fuzzer, sound: dict[str, bytes], seed: int) -> None:
    draw = random.Random(seed)
    names, others = sorted(sound), list(sound.values())
    while time.monotonic() < fuzzer.end:
        name = draw.choice(names)
        fuzzer.read(damage(sound[name], others, draw), Path(name).suffix)


def guided(fuzzer: Fuzzer, folder: Path, seed: int) -> None:
    def one(content: bytes) -> None:
        fuzzer.read(content, ".dcm")  # with this ending, what no format claims is tried as bare DICOM
        if time.monotonic() > fuzzer.end:
            fuzzer.report()
            os._exit(0)  # libFuzzer does not come back

    atheris.Setup([sys.argv[0], f"-seed={seed + 1}", "-max_len=8192", "-rss_limit_mb=4096", str(folder)], one)
    atheris.Fuzz()


def main() -> None:
    seconds, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        sound = seeds(corpus)
        fuzzer = Fuzzer(Path(folder), seconds)
        if atheris:
            guided(fuzzer, corpus, seed)
        loop(fuzzer, sound, seed)
        fuzzer.report()


if __name__ == "__main__":
    main()
