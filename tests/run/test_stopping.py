"""Early stopping: verdicts are those of the whole plan, and do not depend on the SAEs measured beside."""

import json
from dataclasses import replace

import pytest
from builders import cells
from judged import judge
from showing import contradiction

from sae_checks import checks
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.record import record
from sae_checks.record.results import Record, ReleaseFacts
from sae_checks.run import stopping
from sae_checks.run.settle import settle

OF_TEXT = (checks.CE_LOSS, checks.LONG_CONTEXT, checks.USABLE_CONTEXT, checks.SPARSITY)
SAMPLED = (*OF_TEXT, checks.LAMBADA, checks.CBT)
HOOKS = ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.3.hook_resid_post"]


def asked(release="demo", **more):
    return settle(Options(release=release, device="cpu", n_sequences=176, **more))


def judged(of_run, sae_ids, *of_checks, executor=None):
    executor = executor or LocalExecutor(of_run.plan)
    of_all = cells(sae_ids, *of_checks)
    return {cell: judge(executor, of_run, cell[0], checks.named(cell[1]), of_all) for cell in of_all}


@pytest.fixture(scope="module", params=["demo", "demo-broken"])
def runs(request):
    """(early, whole) of one release."""
    found = [asked(request.param, profile=profile) for profile in ("release", "full")]
    return [judged(run, HOOKS, *SAMPLED) for run in found], found[0]


def test_an_early_verdict_is_that_of_the_whole_plan(runs):
    """Outcome and decision are equal; only the final estimates are of fewer sequences."""
    (early, whole), _ = runs
    n_early = 0
    for cell, result in early.items():
        assert (result.outcome, result.decision) == (whole[cell].outcome, whole[cell].decision), cell
        assert result.provenance.corpus == whole[cell].provenance.corpus
        (n,), (n_whole,) = ({e.n for e in r.estimates if e.measure == r.limit.measure} for r in (result, whole[cell]))
        assert n <= n_whole
        n_early += n < n_whole
        if result.decision is not None:
            assert result.decision.n_used <= n
            assert result.decision.n_most == whole[cell].decision.n_most
    assert n_early >= len(early) / 2, n_early


def test_what_is_shown_is_what_the_verdict_rests_on(runs):
    """Early or in full the same value is shown, and its interval agrees with the outcome."""
    (early, whole), _ = runs
    for cell, result in early.items():
        assert contradiction(result) is contradiction(result, as_text=True) is None, result.reason
        if result.decision is not None and result.decision.measure == result.judged.measure:
            assert result.judged == whole[cell].judged
            assert f"n {result.decision.n_used}" in result.reason


def test_what_only_a_wider_limit_passes_is_accepted(runs):
    """The first SAE of the demo degrades by 8 nats where 1 is the default; the limit says why that passes."""
    (early, _), run = runs
    accepted = {cell: result.accepted for cell, result in early.items() if result.accepted is not None}
    assert list(accepted) == [(HOOKS[0], "long_context")]
    source = run.limits[HOOKS[0], "long_context"][0].source
    assert accepted[HOOKS[0], "long_context"] == source
    assert early[HOOKS[0], "long_context"].reason.endswith(f"; accepted: {source}")


def test_alone_or_with_others_makes_no_difference(runs):
    """One SAE and one check at a time gives the same verdicts at the same looks."""
    (early, _), run = runs
    executor = LocalExecutor(run.plan)
    for check in reversed(OF_TEXT):  # each time the SAE has left when the one before was decided
        alone = judge(executor, run, HOOKS[0], check)
        together = early[HOOKS[0], check.name]
        assert (alone.outcome, alone.decision) == (together.outcome, together.decision)


def test_other_batches_decide_alike(runs):
    """Batches of 512 tokens instead of 4096 decide at the same look."""
    (early, _), run = runs
    small = asked(run.plan.release.name, n_batch_tokens=512)
    found = judged(small, HOOKS, checks.CE_LOSS, checks.LONG_CONTEXT)
    for cell, result in found.items():
        expected = early[cell]
        assert result.outcome == expected.outcome
        assert result.decision.n_used == expected.decision.n_used
        assert result.decision.value == pytest.approx(expected.decision.value, abs=1e-5)


def test_the_worst_sequences_are_told_as_text(runs):
    """The worst sequences are within the training context, and their increases average to their means."""
    (early, _), run = runs
    documents = [json.loads(line)["text"] for line in run.plan.corpus.path.read_text().splitlines()]
    for hook in HOOKS:
        result = early[hook, "ce_loss"]
        means = [each.mean_increase_nats_per_token for each in result.worst_sequences]
        assert len(means) == 5
        assert means == sorted(means, reverse=True)
        assert means[0] == pytest.approx(result.decision.worst, rel=1e-3) or means[0] > result.decision.worst
        assert early[hook, "sparsity"].worst_sequences == ()
        for each in result.worst_sequences:
            assert len(each.tokens) == len(each.increase_nats) == 65  # the last is predicted at position 63
            told = [nats for nats in each.increase_nats if nats is not None]
            assert sum(told) / len(told) == pytest.approx(each.mean_increase_nats_per_token, rel=1e-2, abs=1e-4)
            told_text = "".join("".join(each.tokens).removeprefix("<bos>").split())  # without spaces: each . is a word
            assert "".join(documents[each.document_index].split()).startswith(told_text)
            assert " " in "".join(each.tokens)


def test_an_sae_stays_while_its_comparison_is_open(tmp_path, monkeypatch):
    """It stays while the baseline has more values to pair with, and leaves when the comparison is decided, too."""
    run = asked(profile="full")
    (whole,) = judged(run, HOOKS[:1], checks.CE_LOSS).values()
    facts = ReleaseFacts(name="demo", source="embedded", revision=None, sae_ids=run.plan.release.sae_ids)
    earlier = Record(
        started="2026-11-22T00:00:00+00:00",
        wall_s=0.0,
        release=facts,
        options=(("special_tokens", "keep"),),
        software=(),
        platform="",
        results=(whole,),
    )
    record.write(earlier, tmp_path / "earlier.json")
    again = asked(baseline=str(tmp_path / "earlier.json"))
    (left,) = judged(again, HOOKS[:1], checks.CE_LOSS).values()
    assert stopping.compare(again, left).outcome == "passed"
    monkeypatch.setattr(stopping, "compare", lambda _, after: replace(after, outcome="inconclusive"))
    (stayed,) = judged(again, HOOKS[:1], checks.CE_LOSS).values()
    assert (stayed.outcome, stayed.decision) == (left.outcome, left.decision)
    assert [r.estimates[0].n for r in (left, stayed, whole)] == [left.decision.n_used, 176, 176]


def test_studies_of_a_run_take_the_clean_pass_of_its_text(monkeypatch):
    """Each sequence passes through the clean model once, for the text checks and the studies together."""
    run = asked(profile="full", n_study_sequences=20)  # 20: no multiple of a round
    executor = LocalExecutor(run.plan)
    model = type(executor._saes.get(HOOKS[0]).model)
    n_seen, clean = [], model.clean

    def counted(self, tokens, hooks):
        n_seen.append(len(tokens))
        return clean(self, tokens, hooks)

    monkeypatch.setattr(model, "clean", counted)
    of_all = [*cells(HOOKS[:2], *OF_TEXT, checks.PROPAGATION, checks.OWN_LAYER, checks.RANDOM_ERROR)]
    of_all.append(("all of resid", "stacked"))
    results = [judge(executor, run, subject, checks.named(name), of_all) for subject, name in of_all]
    assert {r.outcome for r in results} == {"passed", "reported"}
    n_places = 2 * 20  # own_layer sees the places beside each of the two SAEs in passes of its own
    assert sum(n_seen) == 176 + n_places
    # WHY: without text checks the studies make a pass of their own, with the same numbers
    alone = LocalExecutor(run.plan)
    of_studies = [cell for cell in of_all if cell[1] not in {check.name for check in OF_TEXT}]
    for cell in of_studies:
        found = judge(alone, run, cell[0], checks.named(cell[1]), of_studies)
        shared = results[of_all.index(cell)]
        assert found.provenance == shared.provenance
        for one, other in zip(found.estimates, shared.estimates, strict=True):
            assert one.value == pytest.approx(other.value, rel=1e-3, abs=1e-4)
    assert sum(n_seen) == 176 + 2 * n_places + 2 * 20  # WHY 2: random_error needs two passes


def test_choices_that_flipped_are_of_what_was_measured(runs):
    """Lost minus won choices are the drop times the measured queries; the whole run has changed the same ones."""
    (early, whole), _ = runs
    n_compared = 0
    for cell in [cell for cell in early if cell[1] == checks.CBT.name]:
        told = [{(flip.query_index, flip.change) for flip in of[cell].changed_choices} for of in (early, whole)]
        ways = [[way for _, way in of_run] for of_run in told]
        if any(of_run.count(way) == 10 for of_run in ways for way in ("lost", "won")):
            continue  # WHY: at most ten are listed
        for of_run, result in zip(ways, (early[cell], whole[cell]), strict=True):
            drop = next(e for e in result.estimates if e.measure == "choice_accuracy_drop")
            assert of_run.count("lost") - of_run.count("won") == pytest.approx(drop.value * drop.n)
        assert told[0] <= told[1]
        n_compared += 1
    assert n_compared >= 2
