"""An earlier run and a later one on the same tokens: what has become worse, and what cannot be compared."""

import shutil
import subprocess
from dataclasses import replace

import histories
import numpy as np
import pytest
from builders import BUDGET, estimate, limit
from hypothesis import given
from hypothesis import strategies as st

from sae_checks import errors
from sae_checks.comparing import baseline
from sae_checks.comparing.baseline import Baseline, Conditions
from sae_checks.judging.limits import Margin
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio
from sae_checks.judging.study_readings import StackStep
from sae_checks.plan.options import Options
from sae_checks.record import record
from sae_checks.record.results import Record, ReleaseFacts, Result

SHA, OTHER_SHA = "0" * 64, "1" * 64
CONDITIONS = Conditions(special_tokens="keep", sae_ids=("a", "b"))
N = 64


def facts(weights=SHA, **of_corpus):
    """What both runs were made of, but for the SAE's weights."""
    return histories.facts(weights=weights, corpus={"n_sequences": N, **of_corpus})


def ratio(top, bottom=None, measure="ce_increase"):
    top = np.asarray(top, dtype=np.float32)
    bottom = np.full(len(top), 1.0) if bottom is None else bottom
    return PairedRatio(
        measure=measure,
        measures_version=1,
        fingerprint=SHA,
        numerators=tuple(top.tolist()),
        denominators=tuple(map(float, bottom)),
    )


def answers(values, n_listed=None):
    return PairedAnswers(
        measure="accuracy_drop", measures_version=1, fingerprint=SHA, answers=tuple(map(int, values)), n_listed=n_listed
    )


def result(sample, *, weights=SHA, **rest):
    """A measured result that keeps *sample*."""
    check = "ce_loss" if sample.measure == "ce_increase" else "lambada"
    given = {"provenance": facts(weights), "limit": limit(check, sample.measure), **rest}
    columns = (
        (sample.answers, [sample.n]) if isinstance(sample, PairedAnswers) else (sample.numerators, sample.denominators)
    )
    value = sum(columns[0]) / sum(columns[1])
    return Result(
        sae_id="a", check=check, outcome="passed", reason="", estimates=(estimate(sample.measure, value),),
        paired_sample=sample, **given,
    )  # fmt: skip


def of(before, conditions=CONDITIONS):
    return Baseline(source="last", started="2026-01-01", conditions=conditions, results=(before,))


def margin(value=0.01, kind="max", measure="ce_increase", unit="nats/token"):
    found = Margin(check="c", measure=measure, value=value, unit=unit, source="a test", where="t.toml [here]")
    return found.limit(limit(measure="ce_increase", kind=kind))


def compared(before, after, at=None, **rest):
    """The comparison of two samples; the SAE was trained again in between."""
    return baseline.compare(
        result(after, weights=OTHER_SHA, **rest), of(result(before)), at or margin(), CONDITIONS, BUDGET
    )


def value(found, measure="difference"):
    (only,) = (e for e in found.estimates if e.measure == measure)
    return only


def noise(seed, n=N):
    return np.random.default_rng(seed).normal(0.1, 0.05, n)


bottoms = st.lists(st.integers(1, 32), min_size=N, max_size=N)
seeds = st.integers(0, 99)


@given(seeds, seeds, bottoms)
def test_swapping_the_runs_flips_the_sign(one, other, bottom):
    """Before and after change places, and the difference its sign."""
    first, second = ratio(noise(one) * bottom, bottom), ratio(noise(other) * bottom, bottom)
    there, back = value(compared(first, second)), value(compared(second, first))
    assert there.value == pytest.approx(-back.value, abs=1e-9)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


@given(seeds, bottoms)
def test_identical_values_differ_by_nothing_and_pass(seed, bottom):
    """A difference of exactly 0 with no width, though the weights are others."""
    same = ratio(noise(seed) * bottom, bottom)
    found = compared(same, same)
    assert (value(found).value, value(found).low, value(found).high) == (0, 0, 0)
    assert found.outcome == "passed"
    assert found.reason.startswith("the same: ")


@given(seeds, seeds, st.permutations(range(N)))
def test_permuting_both_runs_changes_nothing(one, other, order):
    """Pairs stay pairs."""
    first, second = noise(one), noise(other)
    plain, turned = compared(ratio(first), ratio(second)), compared(ratio(first[order]), ratio(second[order]))
    assert value(plain).value == pytest.approx(value(turned).value, abs=1e-9)
    assert value(plain).high == pytest.approx(value(turned).high, abs=1e-9)


@pytest.mark.parametrize(
    ("shift", "outcome", "words"),
    [
        (0.02, "failed", "0.02"),
        (0.002, "passed", "worse, but within the margin: "),
        (-0.02, "passed", "better: "),
    ],
)
@pytest.mark.parametrize("kind", ["max", "min"])
def test_a_shift_is_judged_by_the_margin(shift, outcome, words, kind):
    """Above the margin it fails, below it is worse in so many words, the other way better: for either side of limit."""
    before, sign = noise(1), 1 if kind == "max" else -1
    after = before + sign * shift + np.random.default_rng(2).normal(0, 1e-4, N)
    found = compared(ratio(before), ratio(after), margin(kind=kind))
    assert found.outcome == outcome
    assert words.replace("0.02", f"{sign * 0.02:.2f}") in found.reason
    assert value(found, "after").value - value(found, "before").value == pytest.approx(sign * shift, abs=1e-3)


def test_the_pairs_are_what_is_compared():
    """Sequences that differ much among themselves and little between the runs: unpaired nothing could be told."""
    before = np.random.default_rng(3).normal(0.1, 5, N)
    after = before + np.random.default_rng(4).normal(0.05, 0.01, N)
    assert compared(ratio(before), ratio(after)).outcome == "failed"


def test_a_difference_that_cannot_be_told_from_the_margin_is_inconclusive():
    """And is no pass."""
    after = noise(1) + np.random.default_rng(2).normal(0.01, 0.05, N)
    assert compared(ratio(noise(1)), ratio(after)).outcome == "inconclusive"


def test_a_baseline_that_left_early_says_what_would_tell_more():
    """It has fewer values than this run: the first of both are paired, and no more of this run would decide it."""
    after = noise(1) + np.random.default_rng(2).normal(0.01, 0.05, N)
    found = compared(ratio(noise(1)[:32]), ratio(after))
    assert found.outcome == "inconclusive"
    assert found.decision.n_used == found.decision.n_most == 32
    assert "the baseline stopped after 32; --sae-profile=full measures all of them" in found.reason
    assert "the baseline left" not in compared(ratio(noise(1)), ratio(after)).reason


def test_few_values_pass_only_if_the_weights_are_the_same():
    """Sixteen equal pairs prove nothing of another SAE; of the same files everything."""
    few = ratio(noise(1, 16))
    assert compared(few, few).outcome == "inconclusive"
    again = baseline.compare(result(few), of(result(few)), margin(), CONDITIONS, BUDGET)
    assert (again.outcome, again.decision) == ("passed", None)
    moved = ratio(noise(1, 16) + 1e-3)
    drifted = baseline.compare(result(moved), of(result(few)), margin(), CONDITIONS, BUDGET)
    assert drifted.outcome == "inconclusive"  # the same files and other numbers: the software has changed


def test_answers_are_compared_answer_by_answer():
    """The whole list decides exactly; an answer that flips both ways at once was not the same model."""
    at = margin(0.1, unit="fraction")
    before = [0] * 40
    worse, hardly = [1] * 8 + [0] * 32, [1] * 2 + [0] * 38
    assert compared(answers(before), answers(worse, 40), at).outcome == "failed"
    found = compared(answers(before), answers(hardly, 40), at)
    assert (found.outcome, value(found).value) == ("passed", 0.05)
    assert compared(answers([-1] * 40), answers([1] * 40), at).outcome == "error"


def test_of_a_longer_run_the_first_are_compared():
    """Of one fingerprint the order is one, whoever measured on."""
    found = compared(ratio(noise(1)), ratio(noise(1)[:40]))
    assert (value(found).n, value(found).value) == (40, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"paired_sample": replace(ratio(noise(1)), measures_version=2)}, "the version of the measures"),
        ({"paired_sample": ratio(noise(1), measure="kl")}, "the limited measure"),
        ({"paired_sample": replace(answers([0, 1]), measure="ce_increase")}, "the kind of the sample"),
        ({"paired_sample": replace(ratio(noise(1)), fingerprint=OTHER_SHA)}, "the fingerprint of its tokens"),
        ({"provenance": facts(prepend_bos=False)}, "BOS before every sequence"),
        ({"provenance": replace(facts(), model=replace(facts().model, dtype="bfloat16"))}, "the model's dtype"),
        ({"provenance": replace(facts(), model=replace(facts().model, weights=()))}, "the model's weights"),
        ({"provenance": replace(facts(), sae=replace(facts().sae, hook="g"))}, "the SAE's hook"),
        (
            {"provenance": replace(facts(), sae=replace(facts().sae, n_training_context_tokens=8))},
            "the SAE's training context",
        ),
        ({"stack_steps": (StackStep(sae_id="b", estimates=()),)}, "the list of the stack's SAEs"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)  # fmt: skip
def test_what_is_not_the_same_is_refused(change, words):
    """An error that names what differs, and no verdict."""
    sound = result(ratio(noise(1)))
    found = baseline.compare(replace(sound, **change), of(sound), margin(), CONDITIONS, BUDGET)
    assert (found.outcome, found.estimates) == ("error", ())
    assert words in found.reason.splitlines()[0]
    assert baseline.compare(sound, of(sound), margin(), CONDITIONS, BUDGET).outcome == "passed"


def test_conditions_of_the_whole_run_are_compared():
    """The rule for special tokens; and of what looks at later SAEs, which there are."""
    sound = result(ratio(noise(1)))
    replaced = replace(CONDITIONS, special_tokens="replace")
    found = baseline.compare(sound, of(sound, replaced), margin(), CONDITIONS, BUDGET)
    assert (found.outcome, "special tokens" in found.reason) == ("error", True)
    fewer = replace(CONDITIONS, sae_ids=("a",))
    assert baseline.compare(sound, of(sound, fewer), margin(), CONDITIONS, BUDGET).outcome == "passed"
    next_sae = replace(sound, check="next_sae")
    found = baseline.compare(next_sae, of(next_sae, fewer), margin(), CONDITIONS, BUDGET)
    assert (found.outcome, "the list of the release's SAEs" in found.reason) == ("error", True)


def test_without_values_there_is_no_verdict():
    """Not measured now is not measured; what has a value now alone, or an error, is red, and so is a failure."""
    sound = result(ratio(noise(1)))
    without = replace(sound, paired_sample=None, outcome="not_measured", reason="for a reason")

    def outcome(before, after):
        return baseline.compare(after, of(before), margin(), CONDITIONS, BUDGET).outcome

    assert outcome(without, without) == outcome(sound, without) == "not_measured"
    assert outcome(without, sound) == "error"
    assert outcome(sound, replace(sound, outcome="not_measured")) == "not_measured"  # no room to fail
    assert outcome(replace(sound, sae_id="other"), sound) == "error"
    assert outcome(sound, replace(without, outcome="error")) == "error"
    assert outcome(sound, replace(without, outcome="failed")) == "failed"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The path of a record in a folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    written = Record(
        started="2026-01-01",
        wall_s=1.0,
        release=ReleaseFacts(name="r", source="r", revision=None, sae_ids=("a",)),
        options=(("special_tokens", "keep"),),
        software=(),
        platform="",
        results=(result(ratio(noise(1))),),
        exit_status=0,
    )
    path = tmp_path / "record.json"
    record.write(written, path)
    return path


def load(asked, out=None):
    """The baseline of a run that writes into *out*."""
    return baseline.load(Options(release="r", baseline=asked, out=out), "r")


def test_a_baseline_is_found_by_its_path_or_as_the_last(run):
    """Both are the same run, with what is compared of it."""
    shutil.copy(run, run.parent / "last-green.json")
    by_path, last = load(str(run)), load("last", run.parent)
    assert by_path.results == last.results
    assert by_path.conditions == Conditions(special_tokens="keep", sae_ids=("a",))
    assert by_path.result("a", "ce_loss").paired_sample == ratio(noise(1))
    assert by_path.result("a", "kl") is None
    assert (last.where, last.accepted) == (str(run.parent / "last-green.json"), None)


@pytest.mark.slow
def test_a_baseline_is_found_at_a_git_revision(run):
    """The record as it was committed, not as it is."""
    for command in ("init -q", "add record.json", "-c user.name=n -c user.email=e commit -q -m m"):
        subprocess.run(["git", *command.split()], check=True, cwd=run.parent)
    committed, out = load(str(run)), run.parent
    run.write_text("{")
    assert load("HEAD", out).results == committed.results
    assert load("HEAD:record.json").results == committed.results
    for asked, own in (("no-such-revision", out), ("HEAD", None), ("HEAD:none.json", out), ("--output=x", out)):
        with pytest.raises(errors.UsageError, match="--sae-baseline"):
            load(asked, own)
    assert sorted(path.name for path in out.iterdir()) == [".git", "record.json"]


def test_what_is_no_baseline_is_a_mistake_of_whoever_asked(run, tmp_path):
    """No file, a folder, garbage, another schema, no last run, the file that is replaced: before measuring."""
    (tmp_path / "old.json").write_text(run.read_text().replace('"schema": 4', '"schema": 2'))
    (tmp_path / "bad.json").write_text("{")
    asked = [("none.json", None), (".", None), ("bad.json", None), ("old.json", None), ("last", None)]
    for name, own in [*asked, ("last", tmp_path / "none"), ("nul\0", None), ("record.json", run.parent)]:
        with pytest.raises(errors.UsageError, match="--sae-baseline"):
            load(name, own)
