"""thresholds.toml -> limits: which table applies, and every malformed entry refused where it stands."""

import dataclasses
import math

import pytest
from builders import limit
from hypothesis import given
from hypothesis import strategies as st
from strategies import finite, limits

from sae_checks import checks, errors
from sae_checks.judging import thresholds
from sae_checks.judging.limits import Limit, Margin

LIMIT = {"measure": '"ce_increase"', "max": "0.3", "unit": '"nats/token"', "source": '"a test"'}
SPARSITY = {"measure": '"explained_variance"', "unit": '"fraction"'}


SAMPLED = [check for check in checks.CHECKS if not check.is_exact and not check.is_optional]


def table(name="default.ce_loss", **changes):
    """A table of TOML with *changes* to a right limit; None leaves an entry out."""
    entries = {key: value for key, value in {**LIMIT, **changes}.items() if value is not None}
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in entries.items()), ""])


@pytest.fixture
def load(tmp_path):
    """Thresholds of TOML texts: the user's (or None) over the shipped one."""

    def _load(own, shipped="schema = 1"):
        shipped_path = tmp_path / "shipped.toml"
        shipped_path.write_text(shipped, encoding="utf-8")
        if own is None:
            return thresholds.load(None, shipped=shipped_path)
        own_path = tmp_path / "own.toml"
        own_path.write_text(own, encoding="utf-8")
        return thresholds.load(own_path, shipped=shipped_path)

    return _load


def refused(load, text, *words):
    """Assert that *text* is refused in a message that names its file and holds *words*."""
    with pytest.raises(errors.UsageError) as caught:
        load(text)
    for word in ("own.toml", *words):
        assert word in str(caught.value), text


def document(*tables):
    return "\n".join(["schema = 1", *tables])


def test_the_narrowest_table_applies(load):
    """An SAE's limit over its release's over the default, in whatever order they are written."""
    tables = [
        table("default.ce_loss", max="1"),
        table('release."gpt2*".ce_loss', max="2"),
        table('release."gpt2*".sae."blocks.0.*".ce_loss', max="3"),
    ]
    for order in (tables, tables[::-1]):
        found = load(document(*order))
        assert found.limits("other", "blocks.0.x", "ce_loss")[0].value == 1
        assert found.limits("gpt2-small", "blocks.1.x", "ce_loss")[0].value == 2
        assert found.limits("gpt2-small", "blocks.0.x", "ce_loss")[0].value == 3


def test_a_narrow_table_speaks_only_of_its_checks(load):
    """Where the narrower table has no limit for a check, the wider one answers."""
    lambada = {"measure": '"accuracy_drop"', "unit": '"fraction"'}
    found = load(document(table(max="1"), table('release."r".lambada', **lambada, max="0.2")))
    assert found.limits("r", "a", "ce_loss")[0].value == 1
    assert found.limits("r", "a", "lambada")[0].value == 0.2


def test_of_two_equally_narrow_tables_the_later_applies(load):
    """Patterns that both match: the last one written."""
    found = load(document(table('release."a*".ce_loss', max="1"), table('release."*b".ce_loss', max="2")))
    assert found.limits("ab", "x", "ce_loss")[0].value == 2
    assert found.limits("ac", "x", "ce_loss")[0].value == 1
    found = load(
        document(table('release."*".sae."a*".ce_loss', max="1"), table('release."*".sae."*b".ce_loss', max="2"))
    )
    assert found.limits("r", "ab", "ce_loss")[0].value == 2


def test_the_users_file_comes_before_the_shipped_one_as_a_whole(load):
    """The user's default is not undone by a narrower limit in the shipped file."""
    shipped = document(table('release."r".sae."a".ce_loss', max="9"), table("default.ce_loss", max="8"))
    assert load(document(table(max="1")), shipped).limits("r", "a", "ce_loss")[0].value == 1
    assert load(None, shipped).limits("r", "a", "ce_loss")[0].value == 9


def test_the_shipped_file_answers_where_the_users_is_silent(load):
    """A user's file for one release leaves the others to the shipped file."""
    found = load(document(table('release."mine".ce_loss', max="1")), document(table(max="8")))
    assert found.limits("mine", "a", "ce_loss")[0].value == 1
    assert found.limits("yours", "a", "ce_loss")[0].value == 8


def test_patterns_are_of_case_and_of_the_whole_name(load):
    """fnmatch with case: a name matches as a whole or not at all."""
    found = load(document(table(max="1"), table('release."gpt2".ce_loss', max="2")))
    assert [found.limits(name, "a", "ce_loss")[0].value for name in ("gpt2", "GPT2", "gpt2-small")] == [2, 1, 1]


def test_a_limit_tells_where_it_is_written(load):
    """File and table, so that it can be found and changed."""
    found = load(document(table('release."r".sae."a*".ce_loss', source='"measured in May"')))
    assert found.limits("r", "ab", "ce_loss")[0] == Limit(
        check="ce_loss",
        measure="ce_increase",
        kind="max",
        value=0.3,
        unit="nats/token",
        source="measured in May",
        where='own.toml [release."r".sae."a*".ce_loss]',
    )


def test_a_missing_limit_is_an_error_that_names_the_files(load):
    """Without a limit nothing is judged, and it is said which files were asked."""
    with pytest.raises(errors.UsageError, match=r"no limit for check 'ce_loss' of a") as caught:
        load("schema = 1").limits("r", "a", "ce_loss")
    assert "own.toml, shipped.toml" in str(caught.value)


NOT_FINITE = ("true", "false", '"0.3"', "nan", "inf", "-inf", "[0.3]", "{}", "2024-01-01", "1" + "0" * 400)
NOT_A_TEXT = (None, '""', '"  "', "3", "true", "[]")
NOT_A_TABLE = (
    "default = 1",
    "release = []",
    'release."r" = 3',
    'release."r".sae = 3',
    'release."r".sae."a" = 3',
    "default.ce_loss = 0.3",
    'release."r".ce_loss = 0.3',
    "default = [{}]",
)
UNKNOWN = {
    "[defaults.ce_loss]": "defaults",
    "[default.ce_los]": "ce_los",
    '[release."r".ce_los]': "ce_los",
    '[release."r".saes."a".ce_loss]': "saes",
    '[release."r".sae."a".ce_los]': "ce_los",
    table(maximum="1"): "maximum",
    table('release."r".ce_loss', maximum="1"): "maximum",
    table('release."r".sae."a".ce_loss', maximum="1"): "maximum",
}
REFUSED = {
    **{document(text): ("unknown key", place) for text, place in UNKNOWN.items()},
    **{
        document(table(**{"max": None, kind: value})): ("default.ce_loss", f"{kind} is ", "a finite number")
        for kind in ("max", "min")
        for value in NOT_FINITE
    },
    **{
        document(table(**{key: value})): ("default.ce_loss", f"{key} is ")
        for key in ("measure", "unit", "source")
        for value in NOT_A_TEXT
    },
    **{document(text): ("not a table",) for text in NOT_A_TABLE},
    **{
        schema + "\n" + table(): ("schema is ",)
        for schema in ("", "schema = 2", "schema = 0", "schema = true", "schema = 1.0", 'schema = "1"')
    },
    **dict.fromkeys(("schema = ", "[default", "schema = 1\nschema = 1", table() + table()), ("cannot be read",)),
    document(table(max=None)): ("neither max nor min",),
    document(table(max="1", min="2")): ("min is above max",),
    document(table(worst="1")): ("worst 1", "above 1"),
    document(table(worst="inf")): ("worst is inf",),
    document(table(unit='"bits/token"')): ("bits/token", "nats/token"),
    document(table(measure='"accuracy_drop"')): ("accuracy_drop", "ce_increase"),
}
"""Documents that spoil one thing, and words of the message."""


def test_what_is_not_understood_is_refused_where_it_stands(load):
    """A misspelt key, a number that is none, a missing text: never a limit that silently does not apply."""
    assert load(document(table())).limits("r", "a", "ce_loss")[0].value == 0.3  # what they spoil is right
    for text, words in REFUSED.items():
        refused(load, text, *words)


def test_the_worst_sequence_of_a_limit_is_read(load):
    """How many times the limit it may cost; without it the plan's default applies."""
    assert load(document(table(worst="8"))).limits("r", "a", "ce_loss")[0].worst == 8.0
    assert load(document(table())).limits("r", "a", "ce_loss")[0].worst is None


def test_a_range_is_read(load):
    """max and min together are a range."""
    found = load(document(table(max="0.4", min="0.1"))).limits("r", "a", "ce_loss")[0]
    assert (found.kind, found.value, found.floor) == ("max", 0.4, 0.1)
    assert str(found) == "0.1 <= ce_increase <= 0.4 nats/token"


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10))
def test_a_range_allows_what_both_its_ends_allow(one, other, value):
    """With max and min the limit is a range, and its sides are the limits of its ends."""
    low, high = sorted((one, other))
    found = dataclasses.replace(limit(value=high), floor=low)
    assert found.allows(value) == all(end.allows(value) for end in found.sides) == (low <= value <= high)
    assert [(end.kind, end.value) for end in found.sides] == [("max", high), ("min", low)]


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    """Missing, a folder, or not UTF-8."""
    (tmp_path / "latin.toml").write_bytes(b"schema = 1 # \xe9")
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(errors.UsageError, match="cannot be read"):
            thresholds.load(path)


def test_the_shipped_file_has_a_limit_for_every_check():
    """Any release can be judged without writing limits first, and every limit tells where it comes from."""
    found = thresholds.load()
    for check in SAMPLED:
        for of_check in found.limits("any release", "any SAE", check.name):
            assert check.unit_of(of_check.measure) == of_check.unit
            assert of_check.source
            assert of_check.where == f"thresholds.toml [default.{check.name}.{of_check.measure}]"


def by_measure(name, **changes):
    """A table of TOML for one measure, whose name is the last part of *name*."""
    return table(name, measure=None, **changes)


def test_a_check_has_a_limit_for_each_measure(load):
    """The narrowest for each; the measure that has a margin first, the others in the catalogue's order."""
    shipped = document(
        by_measure("default.ce_loss.ce_increase", max="8"), by_measure("default.ce_loss.ce_spliced", max="7")
    )
    own = document(by_measure('release."r".ce_loss.kl', max="2"), by_measure("default.ce_loss.ce_increase", max="1"))
    found = load(own, shipped)
    limits = found.limits("r", "a", "ce_loss")
    assert [(of.measure, of.value) for of in limits] == [("ce_spliced", 7), ("ce_increase", 1), ("kl", 2)]
    assert limits[2].where == 'own.toml [release."r".ce_loss.kl]'
    assert [of.measure for of in found.limits("q", "a", "ce_loss")] == ["ce_spliced", "ce_increase"]
    first, *_ = load(own, shipped + margin(margin="9")).limits("r", "a", "ce_loss")
    assert first.measure == "ce_increase"


def test_a_table_of_an_older_file_is_the_only_limit_of_its_check(load):
    """It replaces the limits of all wider tables, on whatever measures they are."""
    shipped = document(by_measure("default.ce_loss.ce_increase", max="8"))
    found = load(document(table('release."r".ce_loss', measure='"kl"')), shipped)
    assert [of.measure for of in found.limits("r", "a", "ce_loss")] == ["kl"]
    assert [of.measure for of in found.limits("q", "a", "ce_loss")] == ["ce_increase"]


def test_a_table_of_limits_by_measure_is_checked(load):
    """Unknown measures and keys, tables without a limit, and a mixture of both forms."""
    refused(load, document(by_measure("default.ce_loss.l0")), "unknown key 'l0'", "ce_increase")
    refused(load, document(by_measure("default.ce_loss.kl", least="1")), "unknown key 'least'", "[default.ce_loss.kl]")
    refused(load, document("[default.ce_loss]"), "[default.ce_loss]", "no limit")
    refused(load, document(table(), by_measure("default.ce_loss.kl")), "unknown key 'kl'")


@given(finite, finite)
def test_a_limit_allows_itself_and_its_good_side(value, bound):
    """max allows what is not above it, min what is not below it; the limit itself is allowed."""
    assert limit(value=bound).allows(bound)
    assert limit(value=bound, kind="min").allows(bound)
    assert limit(value=bound).allows(value) is (value <= bound)
    assert limit(value=bound, kind="min").allows(value) is (value >= bound)


@given(st.sampled_from(checks.CHECKS).flatmap(limits))
def test_nan_is_never_allowed(of_check):
    """A comparison with NaN never passes."""
    assert not of_check.allows(math.nan)


def margin(name="default.regression.ce_loss", **changes):
    """A table of TOML with *changes* to a right margin."""
    return table(name, **{"max": None, "margin": "0.01", **changes})


def test_the_narrowest_margin_applies_whatever_the_limits(load):
    """Margins are found by themselves: an SAE's over its release's over the default; most checks have none."""
    own = document(
        margin(),
        margin('release."r".regression.ce_loss', margin="0.02"),
        margin('release."r".sae."a*".regression.ce_loss', margin="0.03"),
        table('release."r".sae."ab".ce_loss'),
    )
    found = load(own, document(margin(margin="9"), margin("default.regression.sparsity", **SPARSITY)))
    assert found.margin("q", "a", "ce_loss").value == 0.01
    assert found.margin("r", "b", "ce_loss").value == 0.02
    assert found.margin("r", "ab", "ce_loss").value == 0.03
    assert found.margin("r", "ab", "sparsity").where == "shipped.toml [default.regression.sparsity]"
    assert found.margin("r", "ab", "lambada") is None


def test_a_margin_that_is_not_understood_is_refused(load):
    """No margin of nothing, unknown keys, units, measures, checks, nor a table in another place."""
    for changes, word in (
        ({"margin": "0"}, "margin 0"),
        ({"margin": "-0.1"}, "margin -0.1"),
        ({"margin": None}, "margin is None"),
        ({"max": "0.1"}, "'max'"),
        ({"unit": '"nats"'}, "unit"),
        ({"measure": '"l0"'}, "'l0'"),
        ({"source": None}, "source"),
        ({"name": "default.regression.golden"}, "'golden'"),
        ({"name": "default.ce_loss.regression"}, "'regression'"),
    ):
        refused(load, document(margin(**changes)), word, "regression")


@given(st.sampled_from(SAMPLED).flatmap(limits), st.floats(1e-6, 1e6))
def test_a_margin_allows_what_is_better_and_no_more_than_itself(of_check, value):
    """On the bad side of the check's own limit; of a range on both sides."""
    of = Margin(check=of_check.check, measure=of_check.measure, value=value, unit=of_check.unit, source="", where="")
    on = of.limit(of_check)
    worse = 1 if of_check.kind == "max" else -1
    assert on.allows(worse * value)
    assert not on.allows(worse * value * 1.01)
    assert on.allows(-worse * value * 1.01) == (of_check.floor is None)


def test_the_shipped_margins_are_on_the_shipped_limits_measures():
    """Else they would be idle."""
    shipped = thresholds.load()
    found = {check.name: shipped.margin("r", "a", check.name) for check in SAMPLED}
    on = {name: margin.measure for name, margin in found.items() if margin is not None}
    assert on
    assert {name: shipped.limits("r", "a", name)[0].measure for name in on} == on
