"""Intervals and tests of images in groups against hand-worked values and the libraries that define them."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, norm, t

from busi_lab.report.results.statistics import weighted_mean
from busi_lab.report.results.uncertainty import (
    bootstrap_p,
    cluster_weights,
    effective_groups,
    holm,
    mean_interval,
    percentile_interval,
    share_interval,
    swap_p,
    wilson_interval,
)
from tests.simulate_uncertainty import WORLDS, tally


def test_cluster_bootstrap_agrees_with_scipy_where_each_image_is_a_cluster() -> None:
    values = np.random.default_rng(1).beta(5, 2, 150)
    weights = cluster_weights([str(i) for i in range(150)])
    assert weights.shape == (2000, 150)
    assert (weights.sum(axis=1) == 150).all()
    ours = percentile_interval(weighted_mean(values, weights), 1e9)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_images_of_a_cluster_come_together_and_widen_the_interval() -> None:
    clusters = np.repeat([f"c{i}" for i in range(30)], 4)
    weights = cluster_weights(clusters)
    assert (weights.reshape(2000, 30, 4) == weights.reshape(2000, 30, 4)[:, :, :1]).all()
    assert (weights == cluster_weights(clusters)).all()
    values = np.repeat(np.random.default_rng(0).random(30), 4)  # copies: 30 images' worth of evidence
    low, high = percentile_interval(weighted_mean(values, weights), 30)
    alone = cluster_weights([str(i) for i in range(120)])
    alone_low, alone_high = percentile_interval(weighted_mean(values, alone), 120)
    assert (high - low) / (alone_high - alone_low) == pytest.approx(2, rel=0.15)


def test_bootstrap_p_by_hand() -> None:
    differences = np.array([0.1] * 97 + [-0.1] * 2)
    assert bootstrap_p(differences, 1e9) == pytest.approx(2 * 3 / 100)
    assert bootstrap_p(-differences, 20) == bootstrap_p(differences, 20)
    assert bootstrap_p(np.zeros(9), 20) == 1


def test_holm_by_hand() -> None:
    # in order 0.01 * 3, 0.02 * 2, 0.04 * 1, none below the one before
    assert holm([0.02, 0.04, 0.01]) == pytest.approx([0.04, 0.04, 0.03])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_groups_count_by_how_alike_their_sizes_are() -> None:
    assert effective_groups(np.array(list("aabbcc"))) == 3
    assert effective_groups(np.array(list("aaaab"))) == pytest.approx(25 / 17)
    assert effective_groups(np.array(list("aab")), np.array([True, False, True])) == 2
    assert effective_groups(np.array(list("a")), np.array([False])) == 0


def test_few_groups_move_percentiles_outwards() -> None:
    values = np.linspace(0, 1, 100_001)
    for groups in (5.0, 30.0):
        tail = norm.cdf(math.sqrt(groups / (groups - 1)) * t.ppf(0.025, groups - 1))
        assert percentile_interval(values, groups) == pytest.approx((tail, 1 - tail), abs=1e-5)
    assert percentile_interval(values, 1e9) == pytest.approx((0.025, 0.975), abs=1e-5)


def test_intervals_leave_undefined_resamples_out() -> None:
    assert percentile_interval(np.array([1.0, np.nan, 1.0]), 50) == (1.0, 1.0)
    for values, groups in ((np.array([np.nan]), 50), (np.ones(9), 1)):
        assert all(math.isnan(end) for end in percentile_interval(values, groups))
        assert all(math.isnan(end) for end in share_interval(1.0, values, 9, groups))
    assert bootstrap_p(np.ones(9), 1) == 1


def test_interval_and_p_of_the_bootstrap_agree() -> None:
    values = np.random.default_rng(0).normal(1, 0.5, 20_000)
    p = bootstrap_p(values, 12)
    tail = norm.cdf(math.sqrt(12 / 11) * t.ppf(p / 2, 11))
    assert np.quantile(values, tail) == pytest.approx(0, abs=0.02)


def test_swapping_groups_counts_all_ways_by_hand() -> None:
    # groups with sums 2, 1 and -1: of the 8 sums of signs 2 and -2 are reached as often as the sum itself, 4 and -4 too
    differences, clusters = np.array([1.0, 1, 1, -1, 0, 0]), np.array(list("aabcde"))
    sums = [2 * x + y - z for x, y, z in product((1, -1), repeat=3)]
    assert swap_p(differences, clusters) == sum(abs(value) >= 2 for value in sums) / 8
    assert swap_p(np.zeros(4), np.array(list("abcd"))) == 1
    assert swap_p(np.array([np.nan, 1.0] * 5), np.array(list("aabbccddee"))) == 2 / 2**5
    # 18 images that one alone has right: nearly all ways are less; copies of an image in one group add nothing
    one_sided = swap_p(np.ones(18), np.array([f"{i}" for i in range(18)]))
    assert one_sided == 1 / 10_000
    copies = swap_p(np.ones(40), np.repeat(["a", "b", "c", "d"], 10))
    assert copies == 2 / 2**4


def test_swapping_needs_no_more_than_random_ways() -> None:
    sums = np.random.default_rng(1).normal(0.25, 1, 13)
    exact = np.mean([abs(np.dot(signs, sums)) >= abs(sums.sum()) for signs in product((1, -1), repeat=13)])
    assert swap_p(sums, np.array([f"{i}" for i in range(13)])) == pytest.approx(exact, abs=0.015)


def test_wilson_interval_by_hand() -> None:
    # n = 4, 2 right: centre 0.5, half-width z * sqrt(1/16 + z^2/64) / (1 + z^2/4)
    half = 1.96 * math.sqrt(1 / 16 + 1.96**2 / 64) / (1 + 1.96**2 / 4)
    assert wilson_interval(0.5, 4) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)
    assert wilson_interval(0, 0) == (0, 1)
    assert wilson_interval(1, 10) == pytest.approx((10 / (10 + 1.96**2), 1), abs=1e-4)
    for right, images in ((0, 7), (3, 7), (55, 60)):
        known = binomtest(right, images).proportion_ci(method="wilson")
        assert wilson_interval(right / images, images) == pytest.approx((known.low, known.high), abs=1e-6)


def test_a_share_of_copies_counts_groups_not_images() -> None:
    clusters = np.repeat([f"{i}" for i in range(30)], 10)  # each patient's ten images are all right or all wrong
    right = np.repeat(np.arange(30) < 24, 10).astype(float)
    resampled = weighted_mean(right, cluster_weights(clusters))
    critical = float(t.ppf(0.975, 29))
    expected = wilson_interval(0.8, 29, critical)
    assert share_interval(0.8, resampled, 300, 30) == pytest.approx(expected, abs=0.01)
    assert share_interval(1.0, np.ones(9), 300, 30) == pytest.approx(wilson_interval(1.0, 30, critical))
    alone = share_interval(0.8, np.random.default_rng(0).normal(0.8, 1e-3, 99), 300, 300)
    assert alone == pytest.approx(wilson_interval(0.8, 300, float(t.ppf(0.975, 299))))  # never more than its images


def test_mean_interval_is_the_bootstrap_t_by_groups() -> None:
    random = np.random.default_rng(2)
    values = random.normal(3, 1, 25)
    draws = cluster_weights([f"{i:02}" for i in range(25)])
    low, high = mean_interval([(values, np.ones(25))], draws)
    half = t.ppf(0.975, 24) * values.std(ddof=1) / 5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.12)
    # two runs on the same images, and each fold's images in one run alone
    assert mean_interval([(values, np.ones(25))] * 2, draws) == pytest.approx((low, high))
    halves = [np.arange(25) < 13, np.arange(25) >= 13]
    folds = mean_interval([(values * half, half.astype(float)) for half in halves], draws)
    assert folds == pytest.approx((low, high), abs=0.12)
    assert mean_interval([(np.full(25, 0.5), np.ones(25))], draws) == (0.5, 0.5)
    missed = np.append(random.normal(0.93, 0.02, 24), 0.0)  # resamples without the one that is missed hardly vary
    low, high = mean_interval([(missed, np.ones(25))], draws)
    assert 0.6 < low < 0.86 and 0.9 < high < 0.95
    assert all(math.isnan(end) for end in mean_interval([(np.ones(1), np.ones(1))], np.ones((9, 1))))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("40 patients, 5 images", "30 patients, 20 images", "155 scans, AUROC 0.967"),
        *("40 patients, 5 images, five seeds against one", "15 patients, 5 images: nothing may be claimed"),
    ],
)
def test_intervals_hold_the_truth_and_equal_models_are_not_told_apart(name: str) -> None:
    world, repetitions = WORLDS[name], 200
    found = tally(world, repetitions)
    if world.groups < 20:
        assert set(found.claims.values()) == {0}
        return
    slack = 2.6 * math.sqrt(0.05 * 0.95 / repetitions)  # of so few repetitions, at 99 %
    assert all(share <= 0.06 + slack for share in found.claims.values()), found
    assert all(0.93 - slack <= share <= 0.97 + slack for share in found.coverage.values()), found
