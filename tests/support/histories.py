"""Runs to keep and compare: small records of a few SAEs whose values a test chooses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import builders
import numpy as np

from sae_checks import checks
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio
from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, Package, Provenance, SaeFacts
from sae_checks.record.results import Record, ReleaseFacts, Result

SHA, OTHER_SHA = "0" * 64, "1" * 64
N = 64
START = datetime(2026, 1, 5, 3, tzinfo=UTC)


def facts(sae_id="a", *, weights=SHA, corpus=None, model=None, sae=None):
    """What a run was made of; *corpus*, *model* and *sae* are changes to it."""
    of_sae = SaeFacts(
        sae_id=sae_id,
        hook="h",
        hook_out="h",
        head=None,
        architecture="standard",
        d_in=4,
        d_sae=8,
        n_training_context_tokens=16,
        weights=(FileHash(name="w", sha256=weights),),
    )
    of_model = ModelFacts(
        source="m",
        architecture="GPT2LMHeadModel",
        backend="transformers",
        processing=(),
        dtype="float32",
        device="cpu",
        n_layers=2,
        d_model=4,
        n_context_tokens=32,
        weights=(FileHash(name="m", sha256=SHA),),
    )
    of_corpus = CorpusFacts(
        kind="text",
        source="text.jsonl",
        sha256=SHA,
        fingerprint=SHA,
        prepend_bos=True,
        n_sequences=N,
        n_scored_tokens=1000,
        n_context_tokens=32,
        n_truncated=0,
    )
    return Provenance(
        sae=replace(of_sae, **(sae or {})),
        model=replace(of_model, **(model or {})),
        corpus=replace(of_corpus, **(corpus or {})),
    )


def values(mean=0.1, *, seed=0, n=N, sd=0.02):
    """A loss increase per sequence."""
    return np.random.default_rng(seed).normal(mean, sd, n)


def ce_loss(of=None, *, sae_id="a", outcome="passed", fingerprint=SHA, **changes):
    """A result of ce_loss whose increase per sequence is *of*, one token each."""
    of = np.asarray(values() if of is None else of, dtype=np.float32)
    half = 1.998 * of.std(ddof=1) / np.sqrt(len(of)) if len(of) > 1 else 0.01
    mean = float(of.mean())
    provenance = facts(sae_id, **changes)
    provenance = replace(provenance, corpus=replace(provenance.corpus, fingerprint=fingerprint))
    return Result(
        sae_id=sae_id,
        check="ce_loss",
        outcome=outcome,
        reason=f"ce_increase {mean:.4g}",
        limit=builders.limit(),
        estimates=(
            builders.estimate("kl", 0.5),
            builders.estimate("ce_increase", mean, mean - half, mean + half, n=len(of)),
        ),
        paired_sample=PairedRatio(
            measure="ce_increase",
            measures_version=1,
            fingerprint=fingerprint,
            numerators=tuple(of.tolist()),
            denominators=(1.0,) * len(of),
        ),
        provenance=provenance,
    )


def lambada(answers, *, sae_id="a", n_listed=None, **changes):
    """A result of lambada whose drop, answer by answer, is *answers*."""
    drop = sum(answers) / len(answers)
    return Result(
        sae_id=sae_id,
        check="lambada",
        outcome="passed",
        reason="",
        limit=builders.limit("lambada", "accuracy_drop"),
        estimates=(
            Estimate(measure="accuracy_drop", value=drop, low=drop, high=drop, unit="fraction", n=len(answers)),
        ),
        paired_sample=PairedAnswers(
            measure="accuracy_drop",
            measures_version=1,
            fingerprint=SHA,
            answers=tuple(map(int, answers)),
            n_listed=n_listed,
        ),
        provenance=facts(sae_id, **changes),
    )


def without_values(check="ce_loss", outcome="not_measured", *, sae_id="a", reason="for a reason"):
    """A result that measured nothing."""
    return Result(sae_id=sae_id, check=check, outcome=outcome, reason=reason, limit=_limit_of(check))


def _limit_of(check):
    measure = checks.named(check).measures[-1].name
    return builders.limit(check, measure)


def counted(outcome="passed", *, sae_id="a", value=0.0):
    """A result of distinct, which has no sample and no margin."""
    found = Estimate(measure="copies", value=value, low=value, high=value, unit="SAEs", n=1)
    limit = builders.limit("distinct", "copies", value=0.0)
    return Result(sae_id=sae_id, check="distinct", outcome=outcome, reason="", limit=limit, estimates=(found,))


def run(*results, release="demo", day=0, special_tokens="keep", exit_status=0, sae_ids=("a", "b"), torch="2.13.0"):
    """One run, *day* days after the first."""
    return Record(
        started=(START + timedelta(days=day)).isoformat(timespec="seconds"),
        wall_s=1.0,
        release=ReleaseFacts(name=release, source="embedded", revision=None, sae_ids=sae_ids),
        options=(("special_tokens", special_tokens), ("n_sequences", N)),
        software=(Package(name="sae-checks", version="1.0"), Package(name="torch", version=torch)),
        platform="here",
        results=results or (ce_loss(),),
        exit_status=exit_status,
    )


def release(n_saes, n_runs, *, worse=(), noise=0.03):
    """
    *n_runs* runs of *n_saes* SAEs, a day apart, with twelve limited measures.

    *worse*: {(index of the SAE, index of the check): (first worse run, factor)}; the device changes after a quarter.
    """
    rng = np.random.default_rng(0)
    ids = tuple(f"blocks.{i}.hook_resid_pre" for i in range(n_saes))
    worse = dict(worse)
    of_saes = [check for check in checks.CHECKS if check.of == "sae"][:12]
    runs = []
    for day in range(n_runs):
        results = []
        device = "cpu" if day < n_runs // 4 else "cuda:0"
        for i, sae_id in enumerate(ids):
            for j, check in enumerate(of_saes):
                since, factor = worse.get((i, j), (n_runs, 1.0))
                value = (factor if day >= since else 1.0) * (1 + noise * rng.normal())
                results.append(_measured(sae_id, check, value, device))
        runs.append(run(*results, day=day, sae_ids=ids))
    return runs


def _measured(sae_id, check, value, device):
    measure = check.measures[-1]
    estimate = Estimate(measure=measure.name, value=value, low=value - 0.06, high=value + 0.06, unit=measure.unit, n=N)
    return Result(
        sae_id=sae_id,
        check=check.name,
        outcome="passed" if value <= 2 else "failed",
        reason="",
        limit=builders.limit(check.name, measure.name, value=2.0),
        estimates=(estimate,),
        provenance=facts(sae_id, model={"device": device}),
    )
