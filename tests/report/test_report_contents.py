"""What a report says before anyone lays it out: verdict, order, and the numbers behind each plot."""

import math
from dataclasses import replace

import pytest
import report_record
from builders import limit
from hypothesis import given
from hypothesis import strategies as st
from strategies import curves, finite, records

from sae_checks import checks, errors
from sae_checks.record.results import Result
from sae_checks.report import contents, figures, plots, wording
from sae_checks.report.plots import Dot, LinePlot, MatrixPlot, ReferenceLine, Scale


def with_outcomes(outcomes, *, profile="release", check="ce_loss"):
    """A record of one SAE whose checks have *outcomes*."""
    names = [check, *(c.name for c in checks.CHECKS if c.name != check and c.of == "sae")]
    bare = report_record.run(1, red=())
    results = tuple(
        Result(sae_id=bare.release.sae_ids[0], check=name, outcome=outcome, reason="told", limit=None)
        for name, outcome in zip(names, outcomes, strict=False)
    )
    return replace(bare, results=results, options=(("profile", profile),))


@pytest.mark.parametrize(
    ("outcomes", "word", "sentence"),
    [
        (["passed", "reported"], "passed", "All 1 SAEs within limits: 1 passed, 1 reported."),
        (["passed", "failed"], "failed", "1 of 1 SAEs not within limits: 1 failed, 1 passed."),
        (["inconclusive"], "not_decided", "No check failed, but 1 of 1 SAEs undecided: 1 inconclusive."),
        ([], "not_decided", "No check failed, but not all is decided: no checks."),
    ],
)
@pytest.mark.parametrize("profile", ["smoke", "release"])
def test_the_verdict_is_that_of_the_record(outcomes, word, sentence, profile):
    """In smoke as in release: an undecided check is no pass."""
    run = with_outcomes(outcomes, profile=profile)
    found = contents.build(run).verdict
    assert (found.word, found.sentence) == (run.verdict, sentence) == (word, sentence)


@pytest.mark.parametrize("reason", ["not selected (-k, -m, --lf, paths)", "not reached"])
def test_what_was_left_out_is_counted(reason):
    run = with_outcomes(["passed", "not_measured"])
    first, second = run.results
    verdict = contents.build(replace(run, results=(first, replace(second, reason=reason)))).verdict
    assert verdict.notes == ("Checks that were not selected or not reached: 1.",)


def test_what_only_warns_is_not_counted_among_what_stops():
    """In the smoke profile: of two SAEs one failed, the other is inconclusive."""
    run = report_record.run(2, red=("blocks.0.hook_resid_pre",))
    results = [replace(r, outcome="inconclusive") if r.sae_id.startswith("blocks.1") else r for r in run.results]
    verdict = contents.build(replace(run, results=tuple(results), options=(("profile", "smoke"),))).verdict
    assert verdict.sentence.startswith("1 of 2 SAEs not within limits")
    assert [subject.name for subject in verdict.reasons] == ["blocks.0.hook_resid_pre"]
    assert [subject.name for subject in verdict.undecided] == ["blocks.1.hook_resid_pre"]


def test_an_sae_without_results_is_named():
    run = report_record.run(2, red=())
    run = replace(run, release=replace(run.release, sae_ids=(*run.release.sae_ids, "another")))
    verdict = contents.build(run).verdict
    assert verdict.notes == ("Without a verdict: another.",)


def test_the_worst_stands_first():
    """What has most red checks, and of one SAE errors before failures."""
    run = report_record.run(3, red=("blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre"))
    results = [
        replace(r, outcome="error") if (r.sae_id, r.check) == ("blocks.2.hook_resid_pre", "sparsity") else r
        for r in run.results
    ]
    verdict = contents.build(replace(run, results=tuple(results))).verdict
    assert [subject.name for subject in verdict.reasons] == ["blocks.2.hook_resid_pre", "blocks.0.hook_resid_pre"]
    assert [result.outcome for result in verdict.reasons[0].red] == ["error", "failed"]
    assert "2 of 3 SAEs" in verdict.sentence


def test_an_unknown_check_is_told():
    """A record of a later version is refused by name, not by a traceback."""
    run = with_outcomes(["passed"])
    with pytest.raises(errors.RecordError, match="does not know the check of_tomorrow"):
        contents.build(replace(run, results=(replace(run.results[0], check="of_tomorrow"),)))


def test_windows_are_means_of_neighbours():
    """Single positions at first, then more and more of them; together all, each once."""
    found = figures.windows(report_record.curve("ce_increase", "nats/token", float), 100)
    assert (found[0].first, found[0].last, found[0].value) == (0, 0, 0.0)
    widths = [window.last - window.first + 1 for window in found]
    assert sum(widths) == report_record.N_POSITIONS
    assert widths[-1] > widths[15] > 1 == widths[1]
    assert sum(window.last == 99 for window in found) == 1  # none reaches across the end of the training context
    for window in found:
        assert window.value == pytest.approx((window.first + window.last) / 2)


@given(curves(checks.CE_LOSS))
def test_windows_stay_between_the_least_and_the_most(curve):
    """Whatever a record holds."""
    for window in figures.windows(curve, None):
        slack = 1e-9 * max(map(abs, curve.value))
        assert min(curve.value) - slack <= window.value <= max(curve.value) + slack


def test_what_has_a_limit_is_drawn_within_the_training_context_alone_too():
    """There the limit can be seen; beyond it is another scale. Both say where the training context ends."""
    sae = contents.build(report_record.run()).saes[1]
    titles = [plot.title for plot in sae.plots]
    assert titles == [
        "Cross-entropy increase, within the training context",  # limited by ce_loss
        "Cross-entropy increase",
        "Explained variance, within the training context",  # limited by sparsity
        "Explained variance",
    ]
    within, whole = sae.plots[:2]
    assert max(within.x) <= report_record.N_TRAINING < max(whole.x)
    assert [(mark.along, mark.at) for mark in whole.marks] == [("y", 0.3), ("x", report_record.N_TRAINING)]
    assert [(mark.along, mark.at) for mark in within.marks] == [("y", 0.3)]


def test_the_matrix_is_the_error_over_the_splice_s_own():
    """Rows are what is spliced, columns what is behind; nothing is before it."""
    carried, lost = contents.build(report_record.run(3)).matrices
    assert carried.rows == ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre")
    assert carried.columns == ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")
    assert carried.cells == ((0.5, 0.5), (None, 0.5))
    assert carried.limits == (0.7, 0.7)
    assert lost.cells[1][1] == pytest.approx(0.05)


def test_a_profile_has_every_sae_with_its_limit():
    """In the release's order."""
    profile = contents.build(report_record.run(3)).profiles[0]
    assert [dot.label for dot in profile.dots] == [f"blocks.{i}.hook_resid_pre" for i in range(3)]
    assert [dot.outcome for dot in profile.dots] == ["passed", "failed", "passed"]
    assert {dot.limits for dot in profile.dots} == {(0.3,)}


def test_a_stack_is_drawn_step_by_step():
    """The limit is on the whole of it, the last row."""
    (stacked,) = contents.build(report_record.run(3)).stacked
    assert [dot.value for dot in stacked.dots] == pytest.approx([0.1, 0.4, 1.6])
    assert [dot.limits for dot in stacked.dots] == [(), (), (1e6,)]


@given(records())
def test_any_record_has_contents(run):
    """Every result is in exactly one subject, and anchors are unique."""
    found = contents.build(run)
    subjects = (*found.saes, *found.stacks, *found.comparisons)
    assert sorted(r.reason for s in subjects for r in s.results) == sorted(r.reason for r in run.results)
    assert len({subject.anchor for subject in subjects}) == len(subjects)
    names = [plot.name for sae in found.saes for plot in sae.plots]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in names)


@given(st.lists(finite, max_size=5))
def test_every_number_has_its_place_on_a_scale(values):
    """Within the axis, in order, and ticks are on it: three at least."""
    scale = plots.linear(values)
    assert math.isfinite(scale.low)
    assert math.isfinite(scale.high)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(scale.low <= tick <= scale.high for tick in ticks)


@given(st.lists(st.floats(min_value=1e-12, max_value=1e12), min_size=1, max_size=5))
def test_the_same_of_a_logarithmic_one(values):
    """Equal ratios are equally far apart."""
    scale = plots.logarithmic(values)
    assert all(0 <= scale.at(value) <= 1 for value in values)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())
    assert len(scale.ticks()) <= 10
    middle = math.sqrt(scale.low) * math.sqrt(scale.high)
    assert scale.at(middle) == pytest.approx(0.5)


def test_contexts_have_doublings_for_ticks():
    """1, 2, 4, ... as contexts are counted; a limited measure has decades."""
    assert Scale(low=2, high=256, is_log=True).ticks() == (2, 4, 8, 16, 32, 64, 128, 256)
    assert Scale(low=0.003, high=2.5, is_log=True).ticks() == pytest.approx((0.01, 0.1, 1.0))


def test_values_far_apart_are_drawn_by_octaves():
    """Thirty times apart and all above zero; a value of zero or below needs a linear axis."""

    def dots(*values):
        return [Dot(label="", value=v, low=v / 2, high=v * 2, outcome="passed", limits=(1.0,)) for v in values]

    assert plots.dot_scale(dots(0.01, 2.0)).is_log
    assert not plots.dot_scale(dots(0.5, 2.0)).is_log
    assert not plots.dot_scale(dots(-0.01, 2.0)).is_log


def test_a_wide_band_does_not_flatten_the_line():
    """An interval from two sequences reaches as far as half the height of the values."""
    lines = LinePlot(
        name="a",
        title="a",
        description="a",
        x_title="x",
        y_title="y",
        x=(1, 2),
        value=(0, 1),
        low=(-1000, 0.9),
        high=(1000, 1.1),
        marks=(
            ReferenceLine(along="y", at=2, label="limit"),
            ReferenceLine(along="x", at=64, label="training context"),
        ),
    )
    x_scale, y_scale = plots.line_scales(lines)
    assert x_scale.high == 64
    assert -1.5 < y_scale.low < 0
    assert 2 < y_scale.high < 3.5


@given(st.lists(st.none() | finite, min_size=1, max_size=5))
def test_a_matrix_is_the_darkest_at_its_most(cells):
    """Levels rise with the numbers, from the lightest for zero and below."""
    matrix = MatrixPlot(
        name="m", title="", description="", corner="", rows=("r",), columns=(), cells=(tuple(cells),), limits=(None,)
    )
    values = sorted(cell for cell in cells if cell is not None)
    levels = [matrix.level(value, 8) for value in values]
    assert levels == sorted(levels)
    assert all(0 <= level < 8 for level in levels)
    assert all(level == 0 for value, level in zip(values, levels, strict=True) if value <= 0)
    if values and values[-1] > 1e-300:
        assert levels[-1] == 7


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.01234, "0.0123"),
        (-1.5, "\N{MINUS SIGN}1.5"),
        (1499.6, "1500"),
        (-123456, "\N{MINUS SIGN}123456"),
        (1e9, "1e+09"),
        (0.0, "0"),
    ],
)
def test_numbers_are_short(value, said):
    """Three significant digits, whole ones above a thousand."""
    assert wording.number(value) == said


def test_limits_say_their_side():
    """A maximum, a minimum, a range, none."""
    assert wording.limit(limit(value=0.3)) == "≤ 0.3"
    assert wording.limit(limit("sparsity", "explained_variance", "min", 0.9)) == "≥ 0.9"
    assert wording.limit(replace(limit(value=2.0), floor=0.5)) == "0.5 to 2"
    assert wording.limit(None) == ""
