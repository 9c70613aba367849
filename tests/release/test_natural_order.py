"""The order of ids in every list: digits count by value."""

from hypothesis import given
from hypothesis import strategies as st

from sae_checks.release.natural_order import natural_key

TEXTS = st.text(alphabet="ab_./019٣²", max_size=8)


def test_ids_of_releases_are_listed_as_people_count():
    """Layers, widths and L0."""
    counted = ["blocks.2.hook", "blocks.10.hook", "l0_25", "l0_100", "width_1k", "width_16k"]
    assert sorted(set(counted), key=natural_key) == counted


@given(first=st.integers(0), second=st.integers(0))
def test_digits_count_by_value(first, second):
    """Of any length, with zeros in front or without."""
    assert (natural_key(f"l{first}.x") < natural_key(f"l{second}.a")) == (first < second)
    assert natural_key(f"l00{first}") < natural_key(f"l{first + 1}")


@given(texts=st.lists(TEXTS))
def test_the_order_is_total_and_that_of_the_texts_alone(texts):
    """Any two texts can be compared, equal keys are equal texts, and the order given does not matter."""
    backwards = texts[::-1]
    assert sorted(texts, key=natural_key) == sorted(backwards, key=natural_key)
    assert len({natural_key(text) for text in texts}) == len(set(texts))


def test_thousands_of_digits_have_an_order():
    """Whoever names an SAE can give it any number of digits."""
    assert natural_key("9" * 9999) < natural_key("1" + "0" * 9999)
