"""The warning that an L0 is not the recorded one."""

import pytest
from builders import estimate

from sae_checks.judging import recorded_l0


@pytest.mark.parametrize(
    ("value", "half_width", "warns"),
    [
        (1.0, 0.05, False),
        (1.3, 0.1, False),
        (1.3, 0.01, True),
        (0.7, 0.01, True),
        (0.75, 0.06, False),
        (2.5, 0.01, False),
        (0.3, 0.01, False),
    ],
)
def test_it_warns_where_the_whole_interval_is_beyond_a_fifth(value, half_width, warns):
    """Noise does not warn, and what the verdict fails needs no warning."""
    found = [estimate("l0_ratio", value, low=value - half_width, high=value + half_width)]
    assert recorded_l0.ratio_beyond_band(found) == (value if warns else None)
    assert recorded_l0.note(found) == (f"; L0 is {value:g} times the recorded one" if warns else "")


def test_an_unknown_l0_is_no_warning():
    """A release that records no L0 has no such estimate."""
    assert recorded_l0.note([estimate("l0", 30.0)]) == ""
