"""Shares of an ensemble's members, chosen on validation images that all of them have in common."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from busi_lab.errors import UserError
from busi_lab.files import read_rows
from busi_lab.run.members import Member
from busi_lab.run_directory import VALIDATION

_STEPS = 2000


def fit_weights(members: Sequence[Member], images: Sequence[str]) -> list[float]:
    """The shares, together 1, with the least mean negative log-likelihood of the labels.

    Args:
        members: that predict classes.
        images: validation images of all of them.

    Raises:
        UserError: members without classes, no such images, or no predictions of them.
    """
    if not members[0].task.needs_labels:
        raise UserError("--weights fit: chooses shares by class probabilities, and these runs have none; leave it out")
    if not images:
        raise UserError(
            "--weights fit: no image is in the validation set of every run, so there is nothing to choose on that none "
            "has learnt from; leave it out"
        )
    shares = mixture_shares(np.array([_likelihoods(member, images) for member in members]))
    return [float(share) for share in shares]


def mixture_shares(likelihoods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares ``[N]`` of a mixture that make data most likely, by expectation maximisation, which never makes it worse.

    Args:
        likelihoods: of each of M data under each of N parts, ``[N, M]``.
    """
    shares = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(_STEPS):
        together = shares[:, None] * likelihoods
        shares = (together / together.sum(axis=0)).mean(axis=1)
    return shares


def _likelihoods(member: Member, images: Sequence[str]) -> list[float]:
    """The probabilities that a run gives to the true classes of validation images."""
    rows = {row["image"]: row for row in read_rows(member.directory / VALIDATION)}
    try:
        return [max(float(rows[image][f"p_{rows[image]['label']}"]), 1e-12) for image in images]
    except (KeyError, ValueError):
        raise UserError(
            f"--weights fit: {member.directory / VALIDATION} lacks predictions of some image; leave --weights out, or "
            "copy the whole run"
        ) from None
