"""The sequences that a splice cost most: found, cut to the costliest run, aligned with their tokens."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_checks.judging.worst_sequences import N_TOKENS_MOST, worst_sequences

NAN = math.nan


def tokens_of(n):
    return lambda i: [f"{i}:{t}" for t in range(n)]


def test_the_worst_come_first():
    """By mean increase over what was scored, not by its sum; equals in the plan's order, and no more than asked."""
    rows = np.array([[1, 1, 1], [3, NAN, NAN], [2, 2, NAN], [3, 3, NAN]], np.float32)
    found = worst_sequences(rows, [10, 11, 12, 13], tokens_of(4), n_most=3)
    assert [each.document_index for each in found] == [11, 13, 12]
    assert [each.mean_increase_nats_per_token for each in found] == [3, 3, 2]


def test_an_increase_stands_at_the_token_that_was_predicted():
    """The score at position p is of token p + 1; the first token is never predicted."""
    (found,) = worst_sequences(np.array([[0.5, NAN, -0.25]], np.float32), [7], tokens_of(4))
    assert found.tokens == ("0:0", "0:1", "0:2", "0:3")
    assert found.increase_nats == (None, 0.5, None, -0.25)
    assert found.first_position == 0


def test_of_a_long_sequence_the_costliest_run_is_kept():
    """It holds the expensive tokens, says where it begins, and the mean is still that of the whole sequence."""
    row = np.zeros((1, 999), np.float32)
    row[0, 500:510] = 4
    (found,) = worst_sequences(row, np.array([3]), tokens_of(1000))
    assert len(found.tokens) == len(found.increase_nats) == N_TOKENS_MOST
    assert found.tokens[0] == f"0:{found.first_position}"
    assert [t for t, x in zip(found.tokens, found.increase_nats, strict=True) if x] == [
        f"0:{t}" for t in range(501, 511)
    ]
    assert found.mean_increase_nats_per_token == float(f"{40 / 999:.4g}")


def test_what_has_no_mean_is_left_out():
    """Nothing scored, or a number that is not finite."""
    rows = np.array([[NAN, NAN], [math.inf, 1], [0, 1], [-math.inf, math.inf]], np.float32)
    assert [each.document_index for each in worst_sequences(rows, [0, 1, 2, 3], tokens_of(3))] == [2]
    assert worst_sequences(np.zeros((0, 3), np.float32), [], tokens_of(3)) == ()


def test_a_token_that_is_not_there_is_no_token():
    """Scores that do not fit the tokens are a defect, not a shorter table."""
    with pytest.raises(ValueError, match="token 3 was predicted, but the sequence has 3 tokens"):
        worst_sequences(np.zeros((1, 3), np.float32), [0], tokens_of(3))


def test_scores_may_be_padded():
    """Positions behind the end of a sequence are NaN."""
    (found,) = worst_sequences(np.array([[1, 2, NAN, NAN]], np.float32), [0], tokens_of(3))
    assert found.increase_nats == (None, 1, 2)


@given(st.data())
def test_numbers_agree_with_the_plain_definition(data):
    """Order and means by a loop over every sequence; the kept run costs no less than any other of its length."""
    n, width = data.draw(st.integers(0, 6)), data.draw(st.sampled_from([1, 3, N_TOKENS_MOST + 30]))
    sixtyfourths = st.integers(-640, 640).map(lambda k: k / 64)
    cells = st.lists(st.just(NAN) | sixtyfourths, min_size=width, max_size=width)
    rows = np.array([data.draw(cells) for _ in range(n)], np.float32).reshape(n, width)
    found = worst_sequences(rows, np.arange(n), tokens_of(width + 1), n_most=3)
    means = {i: np.nanmean(rows[i].astype(float)) for i in range(n) if not np.isnan(rows[i]).all()}
    assert [each.document_index for each in found] == sorted(means, key=lambda i: (-means[i], i))[:3]
    for each in found:
        assert each.mean_increase_nats_per_token == pytest.approx(means[each.document_index], rel=1e-3)
        of_token = np.concatenate([[0], np.nan_to_num(rows[each.document_index])])
        n_kept = min(N_TOKENS_MOST, width + 1)
        sums = [of_token[i : i + n_kept].sum() for i in range(len(of_token) - n_kept + 1)]
        assert sum(x or 0 for x in each.increase_nats) == pytest.approx(max(sums), rel=1e-3, abs=1e-2)
