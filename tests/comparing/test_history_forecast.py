"""Where the next run is expected and where the level changed: how often that is wrong, and what it finds."""

import builders
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sae_checks.comparing.history import forecast

seeds = st.integers(0, 9999)


def runs(values, width=0.0):
    """Estimates of *values*, each with an interval *width* wide to either side."""
    return [builders.estimate("ce_increase", v, v - width, v + width) for v in map(float, values)]


def noise(seed, n, sd=1.0):
    return np.random.default_rng(seed).normal(5, sd, n)


@pytest.mark.parametrize("n", [8, 12, 30])
def test_one_next_run_in_a_hundred_is_outside(n):
    """Of normal values, at every number of runs."""
    draws = noise(n, 4000 * (n + 1)).reshape(4000, n + 1)
    outside = 0
    for row in draws:
        found = forecast.foretell(runs(row[:n]))
        outside += not found.low <= row[n] <= found.high
    rate = outside / len(draws)
    assert abs(rate - forecast.ALPHA) < 4 * np.sqrt(0.01 * 0.99 / len(draws))


def test_fewer_than_eight_runs_foretell_nothing():
    """Seven say nothing, eight do."""
    assert forecast.foretell(runs(noise(0, 7))) is None
    assert forecast.foretell(runs(noise(0, 8))).n == 8


@given(seeds, st.floats(0.01, 100), st.floats(-50, 50))
def test_scale_and_shift_go_through(seed, scale, shift):
    """What is expected is in the unit of the values."""
    plain, moved = (forecast.foretell(runs(v)) for v in (noise(seed, 10), scale * noise(seed, 10) + shift))
    assert moved.low == pytest.approx(scale * plain.low + shift, rel=1e-6, abs=1e-6)
    assert moved.high == pytest.approx(scale * plain.high + shift, rel=1e-6, abs=1e-6)


def test_runs_that_repeat_each_other_leave_room_for_rounding():
    """Ten equal runs expect the eleventh within some of the standard error of the measure, not to the last digit."""
    found = forecast.foretell(runs([0.1] * 10, width=0.01))
    assert 0.1 - 0.005 < found.low < 0.1 - 1e-4
    assert 0.1 + 1e-4 < found.high < 0.1 + 0.005
    zeros = forecast.foretell(runs([0.0] * 10))
    assert zeros.low <= 0 <= zeros.high < 1e-9


@pytest.mark.parametrize("n", [6, 10, 20, 40])
def test_a_series_at_rest_is_hardly_ever_cut(n):
    """At most one in a hundred, and four standard errors."""
    n_cut = sum(bool(forecast.changes(runs(row))) for row in noise(n, 1500 * n).reshape(1500, n))
    assert n_cut / 1500 < 0.01 + 4 * np.sqrt(0.01 * 0.99 / 1500)


@given(seeds, st.integers(4, 16), st.integers(4, 16), st.sampled_from([-8, 8]))
def test_a_step_is_found_where_it_is(seed, n_before, n_after, step):
    """Eight standard deviations: the run at which it happens, or one beside it, and the two levels."""
    values = noise(seed, n_before + n_after)
    values[n_before:] += step
    (change,) = (c for c in forecast.changes(runs(values)) if abs(c.at - n_before) <= 1)
    assert abs(change.after - change.before - step) < 3


def test_two_steps_are_two_changes():
    """One after the other."""
    values = noise(3, 30, sd=0.1)
    values[10:] += 2
    values[20:] += 2
    assert [change.at for change in forecast.changes(runs(values))] == [10, 20]


def test_an_odd_run_is_no_level():
    """One outlier, in the middle or at the end, cuts nothing."""
    for at in (5, 11):
        values = noise(1, 12, sd=0.01)
        values[at] += 3
        assert forecast.changes(runs(values)) == ()


def test_what_never_moves_is_not_cut_and_what_moves_exactly_is():
    """Runs of the same weights on the same tokens are equal; another level of them is seen, rounding is not."""
    assert forecast.changes(runs([0.0] * 20)) == forecast.changes(runs([])) == ()
    (change,) = forecast.changes(runs([0.1] * 6 + [0.2] * 6, width=0.01))
    assert (change.at, change.before, change.after) == (6, pytest.approx(0.1), pytest.approx(0.2))
    assert forecast.changes(runs([0.1] * 6 + [0.1 + 1e-7] * 6, width=0.01)) == ()


@given(seeds, st.integers(0, 20))
def test_a_series_backwards_changes_at_the_same_places(seed, n):
    """The cuts of the reversed series are its cuts, reversed."""
    values = noise(seed, n)
    values[n // 2 :] += 6
    there, back = forecast.changes(runs(values)), forecast.changes(runs(values[::-1]))
    assume(len(there) == len(back))  # two cuts that fit alike
    assert sorted(n - change.at for change in back) == [change.at for change in there]
