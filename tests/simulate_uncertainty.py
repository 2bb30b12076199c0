"""How often the report's intervals hold the truth, and how often equal models are told apart, in simulated patients.

``python -m tests.simulate_uncertainty 1000`` prints a table; a smaller one, with bounds, is a slow test. A patient has
a difficulty of his own, so that his images are alike; in ``copies`` some images have a near-copy, as in BUSI. With 40
single images the interval of Dice holds the truth in 92 % only: one sample in six has none of the missed lesions that
lower the mean, and nothing in it says that there are any.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm

from busi_lab.report.results.cases import Cases
from busi_lab.report.results.estimates import estimate
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.pairwise import compare_models
from busi_lab.report.results.statistics import area_under, weighted_roc
from busi_lab.report.results.tables import Row, Table
from busi_lab.report.results.uncertainty import Floats
from busi_lab.run_directory import Run
from busi_lab.summary import Summary


@dataclass(frozen=True)
class World:
    """Patients with images, and models that are equally good.

    Attributes:
        groups: patients.
        frames: images of a patient; of ``copies`` one, or two for a third of them.
        alike: share of the variance that the images of a patient have in common.
        accuracy: expected, of two classes.
        separation: of the malignant scores, in standard deviations.
        malignant: share of patients.
        seeds: runs of either experiment.
    """

    groups: int
    frames: int
    alike: float = 0.5
    accuracy: float = 0.85
    separation: float = 1.6
    malignant: float = 0.35
    seeds: tuple[int, int] = (1, 1)
    copies: bool = False


WORLDS = {
    "40 patients, 1 image": World(40, 1),
    "40 patients, 5 images": World(40, 5),
    "30 patients, 20 images": World(30, 20),
    "60 patients, 10 images, accuracy 0.92": World(60, 10, accuracy=0.92),
    "155 scans, a third with a copy": World(117, 1, alike=0.9, copies=True),
    "155 scans, AUROC 0.967": World(155, 1, alike=0.0, separation=2.6, malignant=0.27),
    "40 patients, 5 images, five seeds against one": World(40, 5, seeds=(5, 1)),
    "40 patients, 5 images, five seeds each": World(40, 5, seeds=(5, 5)),
    "15 patients, 5 images: nothing may be claimed": World(15, 5),
}


def dice_of(quality: Floats) -> Floats:
    """Dice that is high for most images and 0 for some, as lesions that were not found have."""
    found: Floats = np.where(quality < -1.7, 0.0, 1 / (1 + np.exp(-(1.8 + 1.2 * quality))))
    return found


def truth(world: World) -> dict[str, float]:
    """What the figures of a single run are, over all patients there could be."""
    quality = np.random.default_rng(7).standard_normal(4_000_000)
    return {
        "accuracy": world.accuracy,
        "auroc_malignant": float(norm.cdf(world.separation / np.sqrt(2))),
        "dice": float(dice_of(quality).mean()),
    }


def simulate(world: World, random: np.random.Generator) -> list[list[Cases]]:
    """The runs of two experiments that are equally good, tested on the same images.

    Half of what makes an image hard is hard for all runs; the rest is a run's own.
    """
    frames = np.full(world.groups, world.frames)
    if world.copies:
        frames = 1 + (random.random(world.groups) < 1 / 3)
    member = np.repeat(np.arange(world.groups), frames)
    count = len(member)
    malignant = (random.random(world.groups) < world.malignant)[member]

    def noise() -> Floats:
        own: Floats = random.standard_normal(count) * np.sqrt(1 - world.alike)
        return own + random.standard_normal(world.groups)[member] * np.sqrt(world.alike)

    shared = [noise() for _ in range(3)]
    images = np.array([f"i{i:05}" for i in range(count)])

    def run() -> Cases:
        right, score, quality = ((each + noise()) / np.sqrt(2) for each in shared)
        correct = right < norm.ppf(world.accuracy)
        # the predicted class says whether it is right; the probability of malignant keeps the order of the scores
        ranked = norm.cdf(world.separation * malignant + score)
        called = malignant == correct
        chance = np.where(called, 0.5 + ranked / 2, ranked / 2)
        probabilities = np.stack([1 - chance, chance, np.zeros(count)], axis=1)
        dice = dice_of(quality)
        lesion = np.full(count, 1000.0)
        masks = {"dice": dice, "iou": dice / (2 - dice), "lesion_pixels": lesion, "predicted_pixels": lesion}
        masks |= {"pixels": 50 * lesion, "true_positive": dice * lesion, "found": np.ones(count)}
        masks["score"] = ranked
        return Cases(images, np.array([f"g{i}" for i in member]), True, malignant.astype(int), probabilities, masks)

    return [[run() for _ in range(number)] for number in world.seeds]


def figures(cases: Cases, weights: Floats) -> dict[str, Floats]:
    """The three figures that are simulated; the AUROC is that of the scores before a class was chosen."""
    curve = weighted_roc(cases.actual == 1, cases.masks["score"], weights)
    return {
        "accuracy": cases.figures_of("accuracy", weights),
        "auroc_malignant": area_under(*curve[:2]),
        "dice": cases.figures_of("dice", weights),
    }


class Simulated(Experiment):
    """An experiment whose runs are in memory."""

    def __init__(self, label: str, parts: list[Cases]) -> None:
        row = Row(Run(Path(label), Summary("finished", seed=0)), label, label, 1, 1.0)
        table = Table(1, "multitask", "simulated", None, "all", None, None, "val/f1", "max", (row,))
        super().__init__(label, table, frozenset({1}), (row,), 0, None)
        self.__dict__["parts"] = {f"{label}{i}": part for i, part in enumerate(parts)}
        self.__dict__["estimates"] = dict.fromkeys(("accuracy", "dice"))


@dataclass
class Tally:
    """What came of a world: shares of the repetitions."""

    coverage: dict[str, float]
    claims: dict[str, float]


def tally(world: World, repetitions: int, seed: int = 0) -> Tally:
    """How often the first experiment's intervals hold the truth, and how often one is called better than the other."""
    random = np.random.default_rng(seed)
    true = truth(world)
    held, known = dict.fromkeys(true, 0), dict.fromkeys(true, 0)
    claims = {"accuracy": 0, "dice": 0}
    for _ in range(repetitions):
        first, second = simulate(world, random)
        for name, found in estimate(first, figures).items():
            known[name] += 1
            held[name] += found.low <= true[name] <= found.high
        for test in compare_models([Simulated("a", first), Simulated("b", second)]):
            claims[test.measure] += test.p < 0.05
    return Tally(
        {name: held[name] / max(1, known[name]) for name in true},
        {name: count / repetitions for name, count in claims.items()},
    )


def table(repetitions: int) -> Iterator[str]:
    """The lines of a table of all worlds."""
    yield f"{'':48}{'interval holds the truth':>32}{'equal models told apart':>28}"
    yield f"{repetitions} repetitions{'':34}{'accuracy':>10}{'AUROC':>11}{'Dice':>11}{'accuracy':>16}{'Dice':>12}"
    for name, world in WORLDS.items():
        found = tally(world, repetitions)
        shares = [f"{found.coverage[key]:11.3f}" for key in ("accuracy", "auroc_malignant", "dice")]
        yield f"{name:48}{''.join(shares)}{found.claims['accuracy']:14.3f}{found.claims['dice']:12.3f}"


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(line, flush=True)
