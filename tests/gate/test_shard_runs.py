"""`--sae-shard`: the shards of a release, merged, say what one run of it says."""

import shutil
from dataclasses import asdict, replace

import pytest
from tiny_release import CHECKS, HOOKS, N_CELLS, N_CHECKS, copy_saes, write_sae, write_zero_sae

from sae_checks.commands import main
from sae_checks.judging.paired_samples import PairedAnswers
from sae_checks.record import merging, record, run_verdict

pytest_plugins = ["pytester"]

SMALL = ("--sae-sequences=16", "--sae-study-sequences=16")


def numbers(result):
    """Everything of *result* that was measured, flat."""
    found = [x for e in result.estimates for x in (e.value, e.low, e.high, e.n)]
    found += [
        x
        for curve in result.curves
        for x in (*curve.position, *curve.value, *curve.low, *curve.high, *curve.n_sequences)
    ]
    found += [x for cell in result.downstream for x in asdict(cell).values() if not isinstance(x, str | None)]
    found += [x for step in result.stack_steps for e in step.estimates for x in (e.value, e.low, e.high, e.n)]
    found += [
        x
        for flip in result.changed_answers
        for x in (flip.item_index, flip.probability_clean, flip.probability_spliced)
    ]
    if result.paired_sample is not None:
        kept = result.paired_sample
        found += kept.answers if isinstance(kept, PairedAnswers) else kept.numerators
    if result.decision is not None:
        found += [x for x in asdict(result.decision).values() if isinstance(x, int | float)]
    return found


def assert_same(merged, whole):
    """Outcomes equal, numbers to 1e-6, all else the same but for the time and where it was written."""
    assert [(r.sae_id, r.check, r.outcome) for r in merged.results] == [
        (r.sae_id, r.check, r.outcome) for r in whole.results
    ]
    for one, other in zip(merged.results, whole.results, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-6, abs=1e-6), (one.sae_id, one.check)
        assert (one.limit, one.provenance) == (other.limit, other.provenance)
        assert [e.measure for e in one.estimates] == [e.measure for e in other.estimates]
    assert merged.release == whole.release
    assert dict(merged.options) | {"out": ""} == dict(whole.options) | {"out": ""}
    assert (merged.software, merged.platform) == (whole.software, whole.platform)
    assert record.to_json(merged).keys() == record.to_json(whole).keys()
    assert record.to_json(merged)["release"] == record.to_json(whole)["release"]


def test_two_shards_of_the_demo_are_the_demo(gate):
    """Two shards together have the results of one run, studies and stacks included."""
    runs = {
        shard: gate(options=["--sae-release=demo", *SMALL, *([] if shard is None else [f"--sae-shard={shard}"])]).record
        for shard in (None, "1/2", "2/2")
    }
    whole = runs.pop(None)
    merged = merging.merge(list(runs.items()))
    assert_same(merged, whole)
    measured = [sum(r.provenance is not None for r in run.results) for run in runs.values()]
    assert all(measured)
    assert sum(measured) == sum(r.provenance is not None for r in whole.results) > 40
    assert {r.outcome for r in whole.results} >= {"passed", "reported"}


@pytest.fixture
def shards(gate, tmp_path, tiny):
    """Two shards of a release in which one SAE reconstructs nothing and one is broken."""
    saes = copy_saes(tiny, tmp_path / "saes")
    write_zero_sae(saes / "zero", HOOKS[1])
    write_sae(saes / "broken", HOOKS[0])
    (saes / "broken" / "cfg.json").write_text("{")

    def run(shard, *args):
        asked = [] if shard is None else [f"--sae-shard={shard}"]
        found = gate(*asked, *args, saes=saes)
        shutil.copy(found.record_path, tmp_path / f"{str(shard).replace('/', '-')}.json")
        return found

    return run


def test_a_red_release_is_red_in_shards(shards, tmp_path, capsys):
    """Each shard has the colour of its own SAEs, and the merged record that of the release."""
    whole = shards(None)
    assert whole.exit_code == 1
    parts = [shards("1/2"), shards("2/2")]
    assert [part.exit_code for part in parts] == [1, 0]  # the sound ones are the second shard
    assert sum(part.counts.get("passed", 0) for part in parts) == whole.counts["passed"] == N_CELLS
    names = [str(tmp_path / f"{i}-2.json") for i in (1, 2)]
    out = tmp_path / "all.json"
    assert main.main(["merge", *names, "--out", str(out)]) == 1
    assert f"{2 * N_CHECKS} check(s) did not pass" in capsys.readouterr().out
    assert_same(record.read(out), record.read(tmp_path / "None.json"))


def test_what_another_shard_judges_is_said_to_be_so(shards):
    """Not as deselected by the user, and no row of it in the table; what -k left out is said to be that."""
    part = shards("2/3", "-k", "not sparsity")
    own = [sae_id for sae_id in part.record.release.sae_ids if part.outcomes[sae_id, "ce_loss"] != "not_measured"]
    assert len(own) == 2
    for (sae_id, check), result in part.results.items():
        assert check in (*CHECKS, "distinct")
        if sae_id not in own:
            assert (result.outcome, result.reason) == ("not_measured", run_verdict.of_other_shard("2/3"))
            assert result.limit is not None
        elif check == "sparsity":
            assert result.reason == run_verdict.NOT_SELECTED
    rows = {line.partition(" ")[0] for line in part.lines}
    assert rows & {*part.record.release.sae_ids} == {*own}


def test_a_shard_of_sound_saes_is_green(gate):
    """Exit code 0, whatever the other shards find."""
    run = gate("--sae-shard=1/2")
    assert (run.exit_code, run.counts) == (0, {"passed": 2 * N_CHECKS}), run.text


def test_a_shard_that_cannot_be_is_a_usage_error(gate):
    """More shards than SAEs, or no shard at all: exit code 4 before anything is loaded."""
    for shard, said in (("1/4", "at most 3 shards"), ("4/3", "I/N")):
        run = gate(f"--sae-shard={shard}")
        assert run.exit_code == pytest.ExitCode.USAGE_ERROR, run.text
        assert said in run.text


def test_an_interrupted_shard_leaves_no_pass(shards, tmp_path, pytester, tiny, gate):
    """Checks that a shard did not reach make the whole red although none of them failed."""
    pytester.syspathinsert()
    pytester.makepyfile(  # a plugin: hooks of a conftest are not called for items elsewhere
        cut="def pytest_sessionstart(session):\n"
        "    global the_session\n    the_session = session\n"
        "def pytest_runtest_logreport(report):\n"
        "    if report.when == 'teardown' and 'test_cbt' in report.nodeid:\n        the_session.shouldstop = 'enough'\n"
    )
    cut = gate("--sae-shard=1/1", "-p", "cut")
    assert cut.exit_code == 2, cut.text
    reasons = {r.reason for r in cut.record.results}
    assert run_verdict.NOT_REACHED in reasons
    merged = merging.merge([("cut.json", cut.record)])
    assert "did not pass" in merging.verdict_on(merged, ["cut.json"])
    sound = tuple(replace(r, outcome="passed", reason="good") for r in merged.results)
    assert merging.verdict_on(replace(merged, results=sound), ["cut.json"]) is None
