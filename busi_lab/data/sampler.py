"""The order of training: which scan is drawn when, and with which seed it is augmented."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

Draw = tuple[int, int]  # position in the dataset, seed of its augmentation


class EpochSampler(Sampler[Draw]):
    """Training order and augmentation seeds as a function of seed and epoch alone.

    An epoch is the same whatever the number of workers, and the same when a killed run is continued. With
    ``balanced``, every class has an equal share of the draws: every image of a class is drawn once before any is
    drawn twice. In a distributed run each rank takes every n-th draw.

    Args:
        labels: of the training images.
        balanced: draw the classes equally often.
        seed: of order and augmentation.
        epoch: tells the epoch when an iteration starts.
        rank: of this process.
        ranks: number of processes.
        draws: of an epoch; None for as many as there are images.
    """

    def __init__(
        self,
        labels: Sequence[int],
        balanced: bool,
        seed: int,
        epoch: Callable[[], int],
        rank: int = 0,
        ranks: int = 1,
        draws: int | None = None,
    ) -> None:
        self._labels = np.asarray(labels)
        self._balanced = balanced
        self._seed = seed
        self._rank = rank
        self._ranks = ranks
        self._epoch = epoch
        self._skip = (-1, 0)
        self._draws = len(self._labels) if draws is None else draws

    def skip(self, epoch: int, draws: int) -> None:
        """Leave out the first draws of one epoch, which a run that is continued has behind it."""
        self._skip = (epoch, draws)

    def __len__(self) -> int:
        return max(1, self._draws // self._ranks)

    def __iter__(self) -> Iterator[Draw]:
        epoch = self._epoch()
        random = np.random.default_rng([self._seed, epoch])
        order = self._balanced_order(random) if self._balanced else self._plain_order(random)
        seeds = random.integers(2**31, size=len(order))
        done = self._skip[1] if self._skip[0] == epoch else 0
        for draw in range(self._rank + done * self._ranks, len(self) * self._ranks, self._ranks):
            yield int(order[draw % len(order)]), int(seeds[draw % len(order)])

    def _plain_order(self, random: np.random.Generator) -> np.ndarray[Any, Any]:
        rounds = -(-self._draws // len(self._labels))
        return np.concatenate([random.permutation(len(self._labels)) for _ in range(rounds)])[: self._draws]

    def _balanced_order(self, random: np.random.Generator) -> np.ndarray[Any, Any]:
        count = self._draws
        present = np.unique(self._labels)
        shares = np.full(len(present), count // len(present))
        shares[random.permutation(len(present))[: count % len(present)]] += 1
        drawn = []
        for label, share in zip(present, shares, strict=True):
            members = np.flatnonzero(self._labels == label)
            rounds = [random.permutation(members) for _ in range(-(-share // len(members)))]
            drawn.append(np.concatenate([members[:0], *rounds])[:share])
        return random.permutation(np.concatenate(drawn))
