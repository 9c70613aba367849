"""Shares of a release: every SAE and stack in exactly one, by the release's own order."""

import builders
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import hostile_names

from sae_checks import errors
from sae_checks.plan import flags, options, plan, shards
from sae_checks.release import release

names = st.lists(hostile_names, unique=True, min_size=1, max_size=12)


@st.composite
def decks(draw):
    """SAEs, stacks, and a number of shards that there can be."""
    saes = draw(names)
    stacks = [f"all of {i}" for i in range(draw(st.integers(0, 3)))]
    return saes, stacks, draw(st.integers(1, len(saes)))


def all_shards(saes, stacks, n):
    return [shards.Shard(number=i + 1, n_shards=n).members(saes, stacks) for i in range(n)]


@given(decks())
def test_everything_is_in_exactly_one_shard(deck):
    """No SAE and no stack is judged twice or not at all, and every shard has an SAE."""
    saes, stacks, n = deck
    found = all_shards(saes, stacks, n)
    assert sorted(subject for members in found for subject in members) == sorted([*saes, *stacks])
    assert all(set(members) & set(saes) for members in found)


@given(decks())
def test_shards_are_of_one_size(deck):
    """SAEs and stacks together differ by two at most, SAEs alone by one; each keeps the release's order."""
    saes, stacks, n = deck
    found = all_shards(saes, stacks, n)
    for of, spread in (({*saes}, 1), ({*saes, *stacks}, 2)):
        sizes = [len(of & set(members)) for members in found]
        assert max(sizes) - min(sizes) <= spread
    for members in found:
        assert [subject for subject in saes if subject in members] == [m for m in members if m in set(saes)]


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_a_shard_is_what_it_is_written_as(a, b):
    """I/N and back, for I up to N; more is refused by its flag."""
    number, n = sorted((a, b))
    shard = shards.parse(f"{number}/{n}")
    assert (shard.number, shard.n_shards, str(shard)) == (number, n, f"{number}/{n}")
    if number < n:
        with pytest.raises(errors.UsageError, match="--sae-shard "):
            shards.parse(f"{n}/{number}")


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "1 / 2", "01/2", "1/2\n", "one/two", "²/3"]
)
def test_what_is_no_shard_is_refused(text):
    """Nothing is guessed."""
    with pytest.raises(errors.UsageError, match="--sae-shard "):
        shards.parse(text)


def test_the_order_of_files_does_not_matter(tmp_path):
    """The same SAEs written in another order are dealt alike."""
    layers = [3, 0, 11, 2, 7]
    dealt = []
    for name, order in (("one", layers), ("two", layers[::-1])):
        for layer in order:
            builders.write_sae_at_layer(tmp_path / name / f"sae-{layer}", layer)
        dealt.append(all_shards(release.resolve(str(tmp_path / name)).sae_ids, (), 2))
    assert dealt[0] == dealt[1] == [("sae-0", "sae-3", "sae-11"), ("sae-2", "sae-7")]


def test_the_plan_of_the_demo_is_dealt():
    """In two shards: three SAEs, and two with the stack; multiplicity is the whole's."""
    found = release.resolve("demo")
    settled = [
        plan.make(options.parse({**flags.defaults(), "sae_release": "demo", "sae_shard": shard}), found)
        for shard in (None, "1/2", "2/2")
    ]
    whole, first, second = (each.subjects_of_shard for each in settled)
    assert first == tuple(f"blocks.{i}" for i in ("0.hook_resid_pre", "2.hook_resid_pre", "3.hook_resid_post"))
    assert second == ("blocks.1.hook_resid_pre", "blocks.3.hook_resid_pre", "all of resid")
    assert sorted(first + second) == sorted(whole)
    assert len({each.n_checks for each in settled}) == 1


def test_more_shards_than_saes_are_refused():
    """A shard without an SAE would be a green run of nothing."""
    asked = options.parse({**flags.defaults(), "sae_release": "demo", "sae_shard": "1/6"})
    with pytest.raises(errors.UsageError, match="at most 5 shards"):
        plan.make(asked, release.resolve("demo"))
