"""How often prediction sets hold the true class, in simulated scans: by class, and where scans come in groups.

``python -m tests.simulate_conformal 1000`` prints a table. A world draws validation and test images and their
probabilities; the thresholds come from the validation images alone, as in a run. Over test images without end, the
coverage of one threshold from n scores is Beta(k, n + 1 - k) with k = ceil((n + 1) * coverage) (Vovk, 2012), with mean
k / (n + 1): what is stated or more, whatever the network is. In ``patients`` images of one patient are alike, and
whole patients are shared out: the mean falls a little short, and single runs scatter more. In ``leaky`` the network is
surer of the validation images than of new ones, as it is of near-copies of what it was fitted to: nothing holds.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from busi_lab.report.results.conformal import COVERAGE, lowest_probabilities, prediction_sets
from busi_lab.report.results.statistics import Indices
from busi_lab.report.results.uncertainty import Floats

SHARES = (0.55, 0.27, 0.18)  # of the classes, about those of BUSI


@dataclass(frozen=True)
class World:
    """Images in groups, and a network.

    Attributes:
        groups: validation groups.
        frames: images of a group.
        alike: share of the variance that the images of a group have in common.
        bonus: by which the logit of the true class is higher on validation than on test images.
    """

    groups: int
    frames: int = 1
    alike: float = 0.0
    bonus: float = 0.0


WORLDS = {
    "100 images": World(100),
    "1000 images": World(1000),
    "30 images: too few of a class": World(30),
    "40 patients, 5 images": World(40, 5, 0.6),
    "100 images, leaky: surer on validation": World(100, bonus=1.0),
}
TEST_GROUPS = 400


def draw(world: World, groups: int, bonus: float, random: np.random.Generator) -> tuple[Floats, Indices]:
    """Probabilities ``[N, C]`` and classes ``[N]`` of the images of so many groups."""
    member = np.repeat(np.arange(groups), world.frames)
    actual = random.choice(len(SHARES), groups, p=SHARES)[member]
    own, common = (random.standard_normal((rows, len(SHARES))) for rows in (len(member), groups))
    logits = 1.5 * (own * math.sqrt(1 - world.alike) + common[member] * math.sqrt(world.alike))
    logits[np.arange(len(member)), actual] += 1.5 + bonus
    shares = np.exp(logits)
    return shares / shares.sum(axis=1, keepdims=True), actual


def coverages(world: World, repetitions: int, coverage: float = COVERAGE, seed: int = 0) -> tuple[Floats, Floats]:
    """Coverage on test images by class, ``[R, C]``, NaN without images of it; and mean size of the sets, ``[R]``."""
    random = np.random.default_rng(seed)
    by_class, sizes = np.full((repetitions, len(SHARES)), np.nan), np.zeros(repetitions)
    for i in range(repetitions):
        lowest = lowest_probabilities(*draw(world, world.groups, world.bonus, random), coverage)
        probabilities, actual = draw(world, TEST_GROUPS, 0.0, random)
        sets = prediction_sets(probabilities, lowest)
        covered = sets[np.arange(len(actual)), actual]
        by_class[i] = [covered[actual == c].mean() if (actual == c).any() else np.nan for c in range(len(SHARES))]
        sizes[i] = sets.sum(axis=1).mean()
    return by_class, sizes


def table(repetitions: int) -> Iterator[str]:
    """The lines of a table of all worlds."""
    told = f"stated {COVERAGE}, {repetitions} repetitions"
    yield f"{told:42}{'coverage by class: mean':>24}{'5 % quantile':>24}{'size':>12}"
    for name, world in WORLDS.items():
        by_class, sizes = coverages(world, repetitions)
        means, low = np.nanmean(by_class, axis=0), np.nanquantile(by_class, 0.05, axis=0)
        yield f"{name:42}{''.join(f'{x:8.3f}' for x in (*means, *low))}{sizes.mean():12.2f}"


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(line, flush=True)
