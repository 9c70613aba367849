"""Two runs against each other: red where something is worse, and never green where nothing could be said."""

from dataclasses import replace

import builders
import pytest
from histories import OTHER_SHA, ce_loss, counted, lambada, run, values, without_values
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import records

from sae_checks.comparing.history import compare as comparing
from sae_checks.comparing.history.compare import subtract
from sae_checks.judging import thresholds
from sae_checks.record import record

LIMITS = thresholds.load()
seeds = st.integers(0, 999)


def compare(before, after, limits=LIMITS):
    return comparing.compare(before, after, limits)


def cell(before, after):
    """The only cell of two runs of one result each, the SAE trained again in between."""
    (found,) = compare(run(before), run(after)).cells
    return found


def again(mean=0.1, seed=0, **rest):
    """ce_loss of other weights."""
    return ce_loss(values(mean, seed=seed), weights=OTHER_SHA, **rest)


@settings(deadline=None, max_examples=40)
@given(records())
def test_no_run_is_worse_than_itself(of):
    """Whatever is in it, however little: nothing has regressed and nothing is lost or new."""
    found = compare(of, of)
    assert not found.has_regressed
    assert found.of("new") == ()
    assert all(c.state != "lost" or of_outcome(of, c) == "error" for c in found.cells)
    assert len(found.cells) == len(of.results)


def of_outcome(of, found):
    return next(r.outcome for r in of.results if (r.sae_id, r.check) == (found.sae_id, found.check))


def test_a_measured_run_against_itself_is_settled():
    """Exit 0: every pair differs by exactly nothing."""
    one = run(ce_loss(), lambada([0] * 40, n_listed=40), counted())
    found = compare(one, one)
    assert found.is_settled
    assert [(c.state, c.how) for c in found.cells] == [("no worse", "paired")] * 2 + [("not compared", "not")]
    assert (found.cells[0].difference.low, found.cells[0].difference.high) == (0, 0)
    assert found.cells[0].reason.startswith("the same: ")


def test_a_worse_run_is_red():
    """By more than the margin, pair by pair."""
    found = cell(ce_loss(), again(0.15))
    assert (found.state, found.how, found.margin.value) == ("regressed", "paired", 0.01)
    assert found.difference.value == pytest.approx(0.05, abs=1e-3)
    assert cell(lambada([0] * 60), lambada([1] * 40 + [0] * 20)).state == "regressed"


def test_worse_within_the_margin_is_not():
    """And is said in so many words."""
    before = values()
    found = cell(ce_loss(before), ce_loss(before + 0.002 + 1e-4 * values(seed=1), weights=OTHER_SHA))
    assert (found.state, found.reason.partition(":")[0]) == ("no worse", "worse, but within the margin")


def test_what_cannot_be_told_is_open():
    """Neither a regression nor a pass."""
    found = compare(run(ce_loss()), run(again(0.11, seed=1)))
    assert found.cells[0].state == "undecided"
    assert not found.has_regressed
    assert not found.is_settled


@given(seeds, seeds, st.booleans())
def test_swapping_the_runs_flips_the_sign(one, other, is_paired):
    """Paired and unpaired: the difference and its interval, mirrored."""
    first = ce_loss(values(0.1, seed=one))
    second = again(0.12, seed=other + 1000, **({} if is_paired else {"fingerprint": OTHER_SHA}))
    there, back = cell(first, second), cell(second, first)
    assert there.how == back.how == ("paired" if is_paired else "unpaired")
    assert there.difference.value == pytest.approx(-back.difference.value, abs=1e-9)
    assert (there.difference.low, there.difference.high) == pytest.approx(
        (-back.difference.high, -back.difference.low), abs=1e-9
    )


@pytest.mark.parametrize(("mean", "state"), [(0.2, "regressed"), (0.05, "no worse"), (0.11, "undecided")])
def test_another_draw_of_the_text_is_compared_unpaired(mean, state):
    """And says so: with the same seed of everything else but the tokens."""
    found = cell(ce_loss(), again(mean, seed=1, fingerprint=OTHER_SHA))
    assert (found.how, found.state) == ("unpaired", state)
    assert "unpaired" in found.reason


def test_unpaired_is_seldom_a_false_alarm():
    """Two runs of one level, 400 times: at most one in twenty regresses, were the margin nothing."""
    limit = builders.limit("ce_loss", "ce_increase", value=0.0)
    n_wrong = 0
    for seed in range(400):
        first, second = ce_loss(values(seed=seed)), ce_loss(values(seed=seed + 5000))
        n_wrong += comparing._judged(subtract(second.estimates[1], first.estimates[1]), limit, 1) == "regressed"
    assert n_wrong / 400 < 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5


def test_a_range_is_judged_on_both_sides():
    """Away from the earlier value either way is worse; few values decide nothing."""
    margin = replace(builders.limit(value=0.1), floor=-0.1)
    for value, state in ((0.5, "regressed"), (-0.5, "regressed"), (0.0, "no worse"), (0.1, "undecided")):
        difference = replace(builders.estimate("ce_increase", value), measure="difference")
        assert comparing._judged(difference, margin, 1) == state
        assert comparing._judged(replace(difference, n=7), margin, 1) == "undecided"


NOT_ALIKE = {
    "another text": (
        {"corpus": {"source": "other.jsonl", "sha256": OTHER_SHA}, "fingerprint": OTHER_SHA},
        "the text: ",
    ),
    "another context": ({"corpus": {"n_context_tokens": 16}, "fingerprint": OTHER_SHA}, "the tokens per sequence"),
    "another model": ({"model": {"weights": ()}}, "the model's weights"),
    "another dtype": ({"model": {"dtype": "bfloat16"}}, "the model's dtype"),
    "another hook": ({"sae": {"hook": "g"}}, "the SAE's hook"),
    "no BOS": ({"corpus": {"prepend_bos": False}}, "BOS before every sequence"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), NOT_ALIKE.values(), ids=NOT_ALIKE)
def test_what_was_not_measured_alike_is_not_compared(change, words):
    """Open, with the reason, and never green."""
    found = compare(run(ce_loss()), run(ce_loss(**change)))
    assert (found.cells[0].state, found.cells[0].how) == ("undecided", "not")
    assert words in found.cells[0].reason
    assert not found.is_settled


def test_another_rule_for_special_tokens_is_not_compared():
    """It is of the whole run."""
    found = compare(run(ce_loss()), run(ce_loss(), special_tokens="replace"))
    assert "the rule for special tokens" in found.cells[0].reason
    assert not found.is_settled


def test_without_a_margin_nothing_is_compared_and_that_is_said():
    """Not open, for nobody has said what would be too much; but a run of nothing else is not settled."""
    found = compare(run(counted()), run(counted()))
    (only,) = found.cells
    assert (only.state, only.before.value, only.after.value) == ("not compared", 0, 0)
    assert "no margin" in only.reason
    assert not found.is_settled
    assert compare(run(ce_loss(), counted()), run(ce_loss(), counted())).is_settled


def test_a_limit_that_breaks_is_a_regression_without_a_margin():
    """Passed before and failed now, whatever the difference says."""
    found = compare(run(ce_loss(), counted()), run(ce_loss(outcome="failed"), counted("failed", value=1)))
    assert [c.state for c in found.cells] == ["regressed", "regressed"]
    assert all(c.reason.startswith("passed before, failed now") for c in found.cells)
    failing = run(ce_loss(outcome="failed"), counted("failed", value=1))
    assert not compare(failing, failing).has_regressed  # it is bad, and no worse than it was


@pytest.mark.parametrize(
    ("now", "state"),
    [
        ((without_values(outcome="not_measured"),), "lost"),
        ((), "lost"),
        ((without_values(outcome="error"),), "regressed"),
    ],
    ids=["not measured", "not there", "an error"],
)
def test_what_was_decided_and_is_open_now_is_no_pass(now, state):
    """A check that was left out, or an SAE that cannot be loaded any more."""
    other = ce_loss(sae_id="b")
    found = compare(run(ce_loss(), other), run(other, *now))
    (of_a,) = (c for c in found.cells if c.sae_id == "a")
    assert of_a.state == state
    assert not found.is_settled or found.has_regressed


def test_what_neither_run_measured_leaves_nothing_open():
    """It is said, and the rest is settled."""
    gone = without_values("lambada")
    found = compare(run(ce_loss(), gone), run(ce_loss(), gone))
    assert found.cells[1].state == "not compared"
    assert found.is_settled


def test_what_is_new_is_said():
    """There is nothing to compare it with."""
    found = compare(run(ce_loss()), run(ce_loss(), ce_loss(sae_id="b")))
    assert [c.state for c in found.cells] == ["no worse", "new"]
    assert found.is_settled


def test_an_open_verdict_that_fails_now_is_judged_by_its_difference():
    """More sequences may settle against what has not changed; without a difference it is a regression."""
    found = compare(run(ce_loss(outcome="inconclusive")), run(ce_loss(outcome="failed")))
    assert found.cells[0].state == "no worse"
    found = compare(run(counted("inconclusive")), run(counted("failed")))
    assert found.cells[0].state == "regressed"


def test_the_margin_is_the_second_run_s(tmp_path):
    """A user's own file lies over the shipped one."""
    own = tmp_path / "own.toml"
    own.write_text(
        'schema = 1\n[release."demo".regression.ce_loss]\nmeasure = "ce_increase"\nmargin = 0.5\n'
        'unit = "nats/token"\nsource = "a test"\n'
    )
    limits = thresholds.load(own)
    assert compare(run(ce_loss()), run(again(0.15)), limits).cells[0].state == "no worse"
    assert compare(run(ce_loss()), run(again(0.15), release="other"), limits).cells[0].state == "regressed"


def test_the_worst_comes_first():
    """And the rest in the order of the run."""
    before = run(ce_loss(), counted(), ce_loss(sae_id="b"))
    after = run(ce_loss(), counted(), again(0.3, sae_id="b"))
    ordered = list(comparing.worst_first(compare(before, after).cells))
    assert [(c.sae_id, c.state) for c in ordered] == [("b", "regressed"), ("a", "no worse"), ("a", "not compared")]


def test_stacks_come_after_saes():
    """Within a state; SAEs as people count."""
    stack = without_values("stacked", "passed", sae_id="all of resid")
    names = ["blocks.10.h", "blocks.2.h"]
    of = run(stack, *(without_values("ce_loss", "passed", sae_id=name) for name in names))
    ordered = comparing.worst_first(compare(run(counted()), of).of("new"))
    assert [cell.sae_id for cell in ordered] == ["blocks.2.h", "blocks.10.h", "all of resid"]


@given(st.floats(-5, 5), st.floats(-5, 5), st.lists(st.floats(0, 3), min_size=4, max_size=4))
def test_a_difference_of_independent_estimates(one, other, widths):
    """It holds the difference, is no narrower than either interval alone, and the same values differ by nothing."""
    a = builders.estimate("ce_increase", one, one - widths[0], one + widths[1])
    b = builders.estimate("ce_increase", other, other - widths[2], other + widths[3])
    found = subtract(a, b)
    assert found.low <= found.value <= found.high
    assert found.high - found.low >= max(sum(widths[:2]), sum(widths[2:])) - 1e-9
    assert subtract(a, a).value == 0


def test_the_runs_of_these_tests_are_records():
    """They come back from their text as they were."""
    for of in (run(), run(lambada([0, 1, -1]), without_values("cbt"))):
        assert record.loads(record.text(of), "x") == of
