"""Measured values -> limits: they let pass what was measured, match its SAE alone, and invent nothing."""

import fnmatch
import math
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from builders import BUDGET, estimate, limit
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import estimates, hostile_names, moderate, records, results

from sae_checks import checks, errors
from sae_checks.comparing import calibration
from sae_checks.judging import thresholds, verdict
from sae_checks.judging.budget import N_LEAST
from sae_checks.judging.paired_samples import PairedRatio
from sae_checks.provenance import Package
from sae_checks.record.results import Record, ReleaseFacts, Result

DATE = "2026-05-01"
NEAR = pytest.approx(0.085, rel=2e-3)
"""The limit of the result below; rounded away, so that the last digit may be one more."""
SAMPLED = [check for check in checks.CHECKS if not check.is_exact]
globbing = st.text("ab[]*?!-\\", max_size=6)
names = globbing | hostile_names.map(errors.shown)  # as `release` makes them: printable
sampled = st.sampled_from(SAMPLED)


def result(value=0.05, *, sae_id="a", bound=0.3, kind="max", outcome="passed", n=64, **of_estimate):
    return Result(
        sae_id=sae_id,
        check="ce_loss",
        outcome=outcome,
        reason="said before",
        limit=limit(kind=kind, value=bound),
        estimates=(estimate("ce_increase", value, n=n, **of_estimate),),
    )


def run(*of_run, name="my-release"):
    return Record(
        started=f"{DATE}T12:00:00+00:00",
        wall_s=1.0,
        release=ReleaseFacts(name=name, source="somebody/saes", revision="0123abc", sae_ids=("a",)),
        options=(("seed", 7), ("model", None)),
        software=(Package(name="torch", version="2.9"),),
        platform="Linux",
        results=of_run,
    )


def loaded(text, folder):
    (folder / "limits.toml").write_text(text, encoding="utf-8")
    (folder / "empty.toml").write_text("schema = 1", encoding="utf-8")
    return thresholds.load(folder / "limits.toml", shipped=folder / "empty.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("limits")


def propose(measured):
    """The proposal for the deciding limit of *measured*."""
    of = next(iter(measured.judged_limits), None)
    return calibration.propose(measured, of, date=DATE, n_checks=31)


@given(st.data(), sampled, st.sampled_from(["max", "min"]), st.sampled_from(["passed", "failed"]))
def test_a_limit_allows_what_was_measured(data, check, kind, outcome):
    """The value and both ends of its interval on the near side, whatever they are, and the verdict by it is a pass."""
    measured = data.draw(st.sampled_from(check.measures).flatmap(estimates))
    measured = replace(measured, n=max(measured.n, N_LEAST))
    of_check = limit(check.name, measured.measure, kind)
    readings = (measured,) if check is not checks.LAMBADA else (measured, estimate("accuracy_clean", 0.8))
    found = propose(
        Result(sae_id="a", check=check.name, outcome=outcome, reason="", limit=of_check, estimates=readings)
    )
    if found.limit is None:
        assert "not be finite" in found.why_none or "it would be" in found.why_none
        return
    far = measured.high if kind == "max" else measured.low
    assert found.limit.allows(far)
    assert found.limit.allows(measured.value)
    assert verdict.judge(readings, found.limit, BUDGET).outcome == "passed"
    assert (found.limit.kind, found.limit.measure, found.limit.unit) == (kind, measured.measure, measured.unit)


@given(moderate.map(abs), st.floats(0, 10), st.sampled_from(["max", "min"]))
def test_a_limit_is_no_further_away_than_the_rule_says(value, width, kind):
    """Three half-widths and the margin, and at most a hundredth more from rounding."""
    measured = result(value, kind=kind, low=value - width, high=value + width)
    found = propose(measured)
    distance = abs(found.limit.value - value)
    exact = 3 * width + max(0.1 * abs(value), 0.005)
    assert exact <= distance * (1 + 1e-9)
    assert distance <= exact + 0.01 * (abs(value) + exact) * 1.001


def test_the_rule_by_hand():
    """Far end 0.05 + 3 x 0.01, margin 0.1 x 0.05; of a fraction near 1 a tenth of what is missing to 1."""
    assert propose(result(0.05)).limit.value == NEAR
    variance = estimate("explained_variance", 0.8, 0.79, 0.82)
    of_check = limit("sparsity", "explained_variance", "min", 0.5)
    measured = Result(sae_id="a", check="sparsity", outcome="passed", reason="", limit=of_check, estimates=(variance,))
    assert propose(measured).limit.value == pytest.approx(0.8 - 3 * 0.01 - 0.02)
    assert propose(result(0.12345, low=0.12345, high=0.12345)).limit.value == 0.136


@given(results())
def test_nothing_is_invented(any_result):
    """Without a verdict, a value or a limit in force there is no limit, and it is said why on one line."""
    found = propose(any_result)
    if any_result.outcome not in ("passed", "failed") or any_result.limit is None or not any_result.estimates:
        assert found.limit is None
    if found.limit is None:
        assert found.why_none
    else:
        assert found.why_none == ""


@pytest.mark.parametrize("outcome", ["error", "not_measured", "inconclusive"])
def test_what_has_no_verdict_gets_a_comment(outcome, folder):
    """The reason is a comment in the file, and no table."""
    text = calibration.to_toml(run(result(outcome=outcome), result(sae_id="b")))
    assert f"# no limit for ce_loss of a: {outcome.replace('_', ' ')}: said before" in text
    found = loaded(text, folder)
    with pytest.raises(errors.UsageError, match="no limit"):
        found.limits("my-release", "a", "ce_loss")[0]
    assert found.limits("my-release", "b", "ce_loss")[0].value == NEAR


def test_what_failed_passes_only_if_a_person_wants_it(folder):
    """Its limit is a comment, and says so; uncommented it is a limit whose source says so."""
    text = calibration.to_toml(run(result(0.9, outcome="failed")))
    head, _, table = text.partition(
        "# FAILED ce_increase <= 0.3 nats/token: look at this SAE before you let it pass by\n"
    )
    with pytest.raises(errors.UsageError, match="no limit"):
        loaded(text, folder).limits("my-release", "a", "ce_loss")[0]
    wanted = loaded(head + table.replace("# ", ""), folder).limits("my-release", "a", "ce_loss")[0]
    assert wanted.allows(0.91)
    assert "it FAILED ce_increase <= 0.3" in wanted.source


def test_a_drop_that_leaves_no_room_to_fail_gives_no_limit():
    """A limit under which the check could not be judged any more is not written."""
    measured = Result(
        sae_id="a",
        check="lambada",
        outcome="failed",
        reason="",
        limit=limit("lambada", "accuracy_drop", value=0.1),
        estimates=(estimate("accuracy_clean", 0.5), estimate("accuracy_drop", 0.4)),
    )
    found = propose(measured)
    assert found.limit is None
    assert "clean accuracy too low" in found.why_none


@pytest.mark.parametrize(("ce", "written"), [(result(0.05), False), (None, True), (result(outcome="error"), True)])
def test_a_usable_context_is_calibrated_against_limits_that_stay(ce, written):
    """Where the file moves the limit of ce_loss it has none for what is measured against that, and says what to do."""
    context = Result(
        sae_id="a",
        check="usable_context",
        outcome="passed",
        reason="",
        limit=limit("usable_context", "usable_context", "min", 1.0),
        estimates=(estimate("usable_context", 2.0),),
    )
    rows = (context,) if ce is None else (ce, context)
    *_, found = calibration.propose_all(run(*rows))
    assert found.is_written is written
    assert ("-k usable_context" in found.why_none) is not written
    kept = replace(ce, limit=replace(ce.limit, value=propose(ce).limit.value)) if not written else ce
    assert written or calibration.propose_all(run(kept, context))[1].is_written


def test_golden_prompts_are_no_limits():
    """An exact check has nothing to calibrate."""
    of_golden = Result(sae_id="a", check="golden", outcome="passed", reason="", limit=None)
    assert calibration.propose_all(run(of_golden)) == ()


@given(names, names, names)
@settings(max_examples=100)
def test_the_file_is_read_back_for_that_sae_and_no_other(folder, release, sae_id, other):
    """Whatever the names hold: the limit applies to them as they are, and to no other SAE or release."""
    found = loaded(calibration.to_toml(run(result(sae_id=sae_id), name=release)), folder)
    back = found.limits(release, sae_id, "ce_loss")[0]
    assert (back.value, back.kind, back.measure, back.unit) == (NEAR, "max", "ce_increase", "nats/token")
    assert back.source == f"calibrated {DATE}, not reviewed: 0.05 [0.04, 0.06], n = 64, margin 0.005"
    for pair in ((release, other), (other, sae_id)):
        if pair != (release, sae_id):
            with pytest.raises(errors.UsageError, match="no limit"):
                found.limits(*pair, "ce_loss")


@given(globbing, globbing)
@settings(max_examples=200)
def test_a_pattern_matches_its_name_alone(name, other):
    """Brackets, stars and question marks of a name are no pattern."""
    assert fnmatch.fnmatchcase(name, calibration.pattern_of(name))
    assert fnmatch.fnmatchcase(other, calibration.pattern_of(name)) == (other == name)


@given(st.text() | st.text(st.characters(codec="utf-8", categories=["Cc", "Cf", "Zl", "Zp", "Zs", "Co"])))
@settings(max_examples=100)
def test_any_text_is_quoted(text):
    """TOML gives back the very text, and nothing unprintable stands in the file."""
    assert tomllib.loads(f"a = {calibration.quoted(text)}") == {"a": text}
    assert calibration.quoted(text).isprintable()


@given(records())
@settings(max_examples=25)
def test_any_record_gives_a_file_that_is_read(folder, any_record):
    """As many limits as were proposed; whatever strangers wrote into names stays in comments."""
    rows = [
        replace(row, sae_id=errors.shown(row.sae_id), provenance=None, limit=row.limit and _named(row.limit))
        for row in any_record.results
    ]
    shown = replace(any_record, release=replace(any_record.release, name="r"), results=tuple(rows))
    proposals = calibration.propose_all(shown)
    found = loaded(calibration.to_toml(shown), folder)
    for proposal in proposals:
        if proposal.is_written:
            written = {of.measure: of for of in found.limits("r", proposal.result.sae_id, proposal.result.check)}[
                proposal.limit.measure
            ]
            assert written.value == proposal.limit.value
            assert math.isfinite(written.value)
    assert sum(len(layer.limits) for layer in found.files[0]) == sum(p.is_written for p in proposals)


def _named(of_check):
    return replace(of_check, source="s", where="w")


@given(records())
@settings(max_examples=10)
def test_the_head_is_nothing_but_comments(any_record):
    """Everything before the first key is a printable comment."""
    head = calibration.to_toml(any_record).partition("\nschema = 1\n")[0].splitlines()
    assert [line for line in head if line and not line.startswith("#")] == []
    assert all(line.isprintable() for line in head)


def test_the_head_says_what_was_measured(folder):
    """Release with commit, date, rule, options and versions."""
    text = calibration.to_toml(run(result()))
    for part in ("NOT REVIEWED", f"{DATE}T12", "somebody/saes at 0123abc", "seed = 7", "torch 2.9", "far end + margin"):
        assert part in text
    assert "model = None" not in text


FULL = {"release": "my release", "profile": "full", "shard": None}


def full(*of_run, **options):
    return replace(run(*of_run), options=tuple((FULL | options).items()))


def test_a_file_that_exists_is_kept(tmp_path):
    """Whatever it is, and a link to nowhere."""
    mine, link = tmp_path / "limits.toml", tmp_path / "link.toml"
    mine.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for path in (mine, link, tmp_path):
        with pytest.raises(errors.UsageError, match="a new file"):
            calibration.write(full(result()), path, name="r.json")
    assert mine.read_text() == "mine"
    with pytest.raises(errors.UsageError, match="cannot be written"):
        calibration.write(full(result()), tmp_path / "none" / "new.toml", name="r.json")
    written = calibration.write(full(result()), tmp_path / "new.toml", name="r.json")
    assert written == calibration.propose_all(full(result()))
    assert (tmp_path / "new.toml").read_text() == calibration.to_toml(full(result()))


@pytest.mark.parametrize(
    ("of_run", "attempt"),
    [
        (full(result(), profile="release"), "pytest --sae-release='my release' --sae-profile=full --sae-out="),
        (full(result(), shard="1/2"), "sae-checks merge"),
        (full(result(outcome="error")), "sae-checks report r.json"),
    ],
)
def test_no_limits_follow_from_a_part(tmp_path, of_run, attempt):
    """Of the plan, of the release, or from nothing: refused with what to type, and nothing is written."""
    with pytest.raises(errors.RecordError, match=r"no limits follow from r\.json") as caught:
        calibration.write(of_run, tmp_path / "new.toml", name="r.json")
    assert f"try:      {attempt}" in str(caught.value)
    assert not (tmp_path / "new.toml").exists()


def test_each_limit_says_how_often_verdicts_at_it_would_be_wrong(folder):
    """Resampled from what was measured; where that is more than promised the file says so, and still is one."""
    tame = np.random.default_rng(0).lognormal(-3, 0.3, 64)
    wild = np.where(np.arange(64) % 20, 0.02, 0.6)
    rows = []
    for sae_id, values in (("tame", tame), ("wild", wild)):
        kept = PairedRatio(
            measure="ce_increase",
            measures_version=1,
            fingerprint="0" * 64,
            numerators=tuple(values),
            denominators=(1.0,) * 64,
        )
        rows.append(replace(result(float(values.mean()), sae_id=sae_id), paired_sample=kept))
    proposals = {p.result.sae_id: p for p in calibration.propose_all(run(*rows))}
    assert proposals["tame"].rates.is_as_promised
    assert not proposals["wild"].rates.is_as_promised
    text = calibration.to_toml(run(*rows))
    assert text.count("plans resampled from what was measured") == 2
    assert text.count("MORE than 1.5 times the nominal 5%") == 1
    for sae_id in ("tame", "wild"):
        assert loaded(text, folder).limits("my-release", sae_id, "ce_loss")[0].value == proposals[sae_id].limit.value
