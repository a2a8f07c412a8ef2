"""Wilson's interval against published values and its own definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.statistics import rate, wilson

Z95 = 1.959964
COUNTS = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


# R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3; 0/10 by hand.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 10, 0.0000, 0.2775),
    ],
)
def test_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS)
def test_both_bounds_are_where_the_score_test_just_rejects(counts: tuple[int, int]) -> None:
    successes, n = counts
    share = successes / n
    for bound in wilson(successes, n):
        error = Z95 * math.sqrt(bound * (1 - bound) / n)
        assert abs(share - bound) == pytest.approx(error, abs=1e-7)


@given(COUNTS)
def test_it_holds_the_share_within_0_and_1(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0.0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1.0


@given(COUNTS, st.integers(2, 9))
def test_more_episodes_narrow_it(counts: tuple[int, int], times: int) -> None:
    successes, n = counts
    low, high = wilson(successes, n)
    more_low, more_high = wilson(successes * times, n * times)
    assert more_high - more_low < high - low


@given(COUNTS)
def test_failures_mirror_successes(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = wilson(successes, n)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low))


def test_the_rate_of_a_cell() -> None:
    assert rate([True, False, True, True]) == {
        "success_rate": 0.75,
        "n": 4,
        "ci95": wilson(3, 4),
    }


def test_no_episode_is_no_rate_and_no_knowledge() -> None:
    cell = rate([])
    assert math.isnan(cell["success_rate"])
    assert cell["ci95"] == (0.0, 1.0)
