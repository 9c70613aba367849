"""Hypothesis strategies shared by the tests: losses, estimates, limits, results, records, hostile names, documents."""

import math
import os
import string
from dataclasses import replace

import builders
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from sae_checks import checks
from sae_checks.explanation import AblatedLatent, CostlyToken, Explanation, RestoredPosition
from sae_checks.judging.changed_answers import ChangedAnswer, ChangedChoice
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.limits import Limit
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio
from sae_checks.judging.position_readings import Curve
from sae_checks.judging.propagation_readings import Downstream
from sae_checks.judging.sequential import Decision
from sae_checks.judging.study_readings import StackStep
from sae_checks.judging.verdict import JudgedLimit
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, Package, Provenance, SaeFacts
from sae_checks.record.results import Record, ReleaseFacts, Result

# No deadline: shared cores stall, and a slow example is no defect. The same examples every time, so that nobody's
# unrelated change turns red by chance; HYPOTHESIS_PROFILE=search looks further.
_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "phases": [phase for phase in Phase if phase is not Phase.explain],  # it reruns a failure for minutes
}
settings.register_profile("steady", derandomize=True, max_examples=30, **_COMMON)
settings.register_profile("search", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "two\nlines",
    "bell\x07 and nul\x00",
    "carriage\rreturn",
    "right\u202eto left",
    "zero\u200bwidth",
    "next\x85line \u2028 paragraph \u2029",
    "half of a pair \ud800",
    "<script>alert(1)</script> & 'quotes' \"both\" %s {0} \\x1b",
    "long " * 100,
    "\u00e9l\u00e8ve \u65e5\u672c\u8a9e \U0001f600",
)
"""Names that strangers could have written."""

hostile_names = st.sampled_from(HOSTILE) | st.text(
    alphabet=st.characters(categories=("Cc", "Cf", "Zl", "Zp", "Zs", "Co", "L", "N", "P", "S")), max_size=40
)

words = st.text(alphabet=string.ascii_lowercase, min_size=1, max_size=8)
documents = st.lists(words, min_size=1, max_size=20).map(" ".join)
document_lists = st.lists(documents, min_size=1, max_size=12)

# In 64ths, so that every sum of them is exact in float64 whatever the order.
rates = st.integers(min_value=0, max_value=64 * 20).map(lambda k: k / 64)
finite = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(min_value=-1e6, max_value=1e6, allow_subnormal=False)


@st.composite
def text_losses(draw, *, n_least=0, n_most=10, reaches_beyond=None):
    """
    Losses of any size whose numbers are finite and agree with each other.

    Args:
        draw: given by Hypothesis.
        n_least: sequences at least.
        n_most: sequences at most.
        reaches_beyond: True: the training context is known and every sequence reaches beyond it; None: anything.
    """
    n = draw(st.integers(n_least, n_most))
    knows = reaches_beyond or draw(st.booleans())
    n_training = draw(st.integers(1, 16)) if knows else None
    has_room = n_training is not None and (reaches_beyond or draw(st.booleans()))
    n_context = n_training + draw(st.integers(1, 16)) if has_room else draw(st.integers(1, n_training or 16))
    n_beyond_least = 1 if reaches_beyond else 0

    def of_span(n_tokens):
        clean, spliced, kl = ([draw(rates) * tokens for tokens in n_tokens] for _ in range(3))
        return builders.span(n_tokens, clean, spliced, kl)

    beyond = [draw(st.integers(n_beyond_least, 12)) if has_room else 0 for _ in range(n)]
    within = [draw(st.integers(1 if tokens else 0, 12)) for tokens in beyond]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = [rng.normal(1, 2, (tokens + 1, 3)) for tokens in within]
    x_hat = [of_sequence + rng.normal(0, 0.5, of_sequence.shape) for of_sequence in x]
    return builders.text_losses(
        of_span(within),
        of_span(beyond),
        ablated=[draw(rates) * tokens for tokens in within],
        of_reconstructing=builders.reconstructions(x, x_hat, rng.integers(0, 50, n)),
        of_positions=builders.by_position([rng.normal(0, 1, rng.integers(0, n + 1)).tolist() for _ in range(4)]),
        n_training_context_tokens=n_training,
        n_context_tokens=n_context,
    )


@st.composite
def item_losses(draw, *, n_least=0, n_most=40):
    n = draw(st.integers(n_least, n_most))
    right = st.lists(st.booleans(), min_size=n, max_size=n)
    logprobs = st.lists(rates.map(lambda nats: -nats), min_size=n, max_size=n)
    lengths = st.lists(st.integers(1, 40), min_size=n, max_size=n)
    return builders.item_losses(
        draw(right), draw(right), draw(logprobs), draw(logprobs), n_context_tokens=draw(lengths)
    )


@st.composite
def estimates(draw, measure):
    low, value, high = sorted(draw(finite) for _ in range(3))
    return Estimate(
        measure=measure.name, value=value, low=low, high=high, unit=measure.unit, n=draw(st.integers(0, 10**6))
    )


@st.composite
def limits(draw, check):
    measure = draw(st.sampled_from(check.measures))
    kind, (low, high) = draw(st.sampled_from(["max", "min", "range"])), sorted((draw(finite), draw(finite)))
    return Limit(
        check=check.name,
        measure=measure.name,
        kind="max" if kind == "range" else kind,
        value=high,
        floor=low if kind == "range" else None,
        worst=draw(st.none() | st.floats(1.5, 20)),
        unit=measure.unit,
        source=draw(st.text(max_size=20)),
        where=draw(st.text(max_size=20)),
    )


hashes = st.integers(0, 2**64).map(lambda k: f"{k:064x}")
small = st.integers(0, 10**6)
texts = st.text(max_size=12)


def file_hashes():
    return st.builds(FileHash, name=texts, sha256=hashes)


def provenances(sae_id):
    """What a measurement of the SAE *sae_id* may have been made of."""
    sae = st.builds(
        SaeFacts,
        sae_id=st.just(sae_id),
        hook=texts,
        hook_out=texts,
        head=st.none() | small,
        architecture=texts,
        d_in=small,
        d_sae=small,
        n_training_context_tokens=st.none() | small,
        weights=st.lists(file_hashes(), max_size=2).map(tuple),
    )
    model = st.builds(
        ModelFacts,
        source=texts,
        architecture=texts,
        backend=texts,
        processing=st.lists(texts, max_size=2).map(tuple),
        dtype=texts,
        device=texts,
        n_layers=small,
        d_model=small,
        n_context_tokens=small,
        weights=st.lists(file_hashes(), max_size=2).map(tuple),
    )
    corpus = st.builds(
        CorpusFacts,
        kind=st.sampled_from(["text", "lambada", "cbt"]),
        source=texts,
        sha256=hashes,
        fingerprint=hashes,
        prepend_bos=st.booleans(),
        n_sequences=small,
        n_scored_tokens=small,
        n_context_tokens=small,
        n_truncated=small,
        n_listed=st.none() | small,
    )
    return st.builds(Provenance, sae=sae, model=model, corpus=corpus)


six_digits = finite.map(lambda x: float(f"{x:.6g}")).filter(math.isfinite)


@st.composite
def curves(draw, check):
    n = draw(st.integers(0, 3))

    def column(numbers):
        return tuple(draw(st.lists(numbers, min_size=n, max_size=n)))

    measure = draw(st.sampled_from(check.measures))
    return Curve(
        measure=measure.name,
        unit=measure.unit,
        position=column(small),
        value=column(six_digits),
        low=column(six_digits),
        high=column(six_digits),
        n_sequences=column(small),
    )


fractions = st.floats(0, 1)
flips = st.builds(
    ChangedAnswer,
    item_index=small,
    change=st.sampled_from(["lost", "won"]),
    passage_end=texts,
    answer=texts,
    probability_clean=fractions,
    probability_spliced=fractions,
)


choice_flips = st.builds(
    ChangedChoice,
    query_index=small,
    change=st.sampled_from(["lost", "won"]),
    passage_end=hostile_names,
    question=texts,
    answer=hostile_names,
    chosen_instead=hostile_names,
    probability_clean=fractions,
    probability_spliced=fractions,
)


latents_taken_out = st.builds(
    AblatedLatent, latent_index=small, activation=finite, norm_share=st.floats(0, 10), recovered_nats=finite
)
sources = st.builds(
    RestoredPosition,
    position=small,
    token=hostile_names,
    recovered_nats=finite,
    norm_ratio=st.none() | st.floats(0, 10),
    cosine=st.none() | st.floats(-1, 1),
    n_active_latents=st.none() | small,
    n_ablated_latents=small,
    all_ablated_recovered_nats=st.none() | finite,
    ablated_latents=st.lists(latents_taken_out, max_size=2).map(tuple),
    why_no_latents=st.none() | hostile_names,
)
costly_tokens = st.builds(
    CostlyToken,
    document_index=small,
    position=small,
    preceding_text=hostile_names,
    token=hostile_names,
    probability_clean=fractions,
    probability_spliced=fractions,
    increase_nats=finite,
    spliced_top_token=st.none() | hostile_names,
    spliced_top_probability=st.none() | fractions,
    n_restored_positions=small,
    restored_positions=st.lists(sources, max_size=2).map(tuple),
)
explanations = st.builds(
    Explanation, tokens=st.lists(costly_tokens, max_size=2).map(tuple), why_none=st.none() | hostile_names
)


@st.composite
def worst_sequences(draw):
    """A sequence that the splice cost much; its tokens are any text."""
    rows = draw(st.lists(st.tuples(hostile_names, st.none() | finite), min_size=1, max_size=4))
    tokens, increases = zip(*rows, strict=True)
    return WorstSequence(
        document_index=draw(small),
        mean_increase_nats_per_token=draw(finite),
        first_position=draw(small),
        tokens=tokens,
        increase_nats=increases,
    )


disturbances = st.builds(
    Downstream,
    sae_id=hostile_names,
    hook=texts,
    relative_error=finite,
    residual_error=finite,
    error_growth=st.none() | finite,
    cosine=finite,
    explained_variance_clean=st.none() | finite,
    explained_variance=st.none() | finite,
    l0_clean=finite,
    l0=finite,
)


@st.composite
def steps(draw, check):
    measures = draw(st.lists(st.sampled_from(check.measures), unique=True))
    return StackStep(sae_id=draw(hostile_names), estimates=tuple(draw(estimates(measure)) for measure in measures))


float32s = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def paired_samples(draw, measure):
    """What of a sample outlives its run."""
    head = {"measure": measure, "measures_version": draw(st.integers(1, 3)), "fingerprint": draw(hashes)}
    if draw(st.booleans()):
        answers = draw(st.lists(st.integers(-1, 1), max_size=4))
        return PairedAnswers(**head, answers=tuple(answers), n_listed=draw(st.none() | small))
    pairs = draw(st.lists(st.tuples(float32s, st.integers(1, 99).map(float)), min_size=1, max_size=4))
    top, bottom = zip(*pairs, strict=True)
    return PairedRatio(**head, numerators=top, denominators=bottom, ideal_value=draw(st.none() | finite))


@st.composite
def decisions(draw, outcome):
    """What a verdict of that *outcome* may rest on."""
    return Decision(
        outcome=outcome,
        measure=draw(st.sampled_from(["ce_increase", "running_increase"])),
        n_used=draw(small),
        n_most=draw(small),
        value=draw(finite),
        low=draw(st.none() | finite),
        high=draw(st.none() | finite),
        worst=draw(finite),
        skewness=draw(finite),
        n_needed=draw(st.none() | small),
    )


@st.composite
def judged_limits(draw, limit):
    """What *limit* may have found beside the one that decides."""
    outcome = draw(st.sampled_from(["passed", "failed", "inconclusive", "not_measured"]))
    decision = None if outcome == "not_measured" else draw(st.none() | decisions(outcome))
    return JudgedLimit(limit=limit, outcome=outcome, reason=draw(hostile_names), decision=decision)


@st.composite
def results(draw, sae_id=None, check=None, provenance=None):
    """One result, for *provenance* (a strategy) or any; only long_context has a curve."""
    check = draw(st.sampled_from(checks.CHECKS)) if check is None else check
    sae_id = draw(hostile_names) if sae_id is None else sae_id
    measures = draw(st.lists(st.sampled_from(check.measures), unique=True))
    drawn = st.lists(curves(checks.CE_LOSS), max_size=2, unique_by=lambda curve: curve.measure)
    made_of = draw(st.none() | provenances(sae_id) if provenance is None else provenance)
    if made_of is not None and check.of == "stack":
        made_of = replace(made_of, sae=None)
    outcome = draw(st.sampled_from(["passed", "failed", "inconclusive", "not_measured", "reported", "error"]))
    is_decided = outcome in ("passed", "failed", "inconclusive")
    several = draw(st.lists(limits(check), max_size=3, unique_by=lambda limit: limit.measure))
    limit, *others = several or (None,)
    return Result(
        sae_id=sae_id,
        check=check.name,
        outcome=outcome,
        reason=draw(hostile_names),
        limit=limit,
        other_limits=tuple(draw(judged_limits(each)) for each in others),
        estimates=tuple(draw(estimates(measure)) for measure in measures),
        paired_sample=draw(st.none() | paired_samples(check.measures[-1].name)),
        decision=draw(st.none() | decisions(outcome)) if is_decided and limit is not None else None,
        curves=tuple(draw(drawn)) if check is checks.LONG_CONTEXT else (),
        changed_answers=tuple(draw(st.lists(flips, max_size=2))) if check is checks.LAMBADA else (),
        changed_choices=tuple(draw(st.lists(choice_flips, max_size=2))) if check is checks.CBT else (),
        worst_sequences=tuple(draw(st.lists(worst_sequences(), max_size=2))) if check is checks.CE_LOSS else (),
        explanation=draw(st.none() | explanations) if check is checks.CE_LOSS else None,
        downstream=tuple(draw(st.lists(disturbances, max_size=2))) if check is checks.PROPAGATION else (),
        stack_steps=tuple(draw(st.lists(steps(check), max_size=2))) if check.of == "stack" else (),
        provenance=made_of,
    )


@st.composite
def records(draw):
    sae_ids = draw(st.lists(hostile_names, unique=True, max_size=3))
    rows = []
    for sae_id in sae_ids:
        provenance = draw(st.none() | provenances(sae_id))  # one for all checks of an SAE
        of_sae = draw(st.lists(st.sampled_from(checks.CHECKS), unique=True, max_size=2))
        rows.extend(draw(results(sae_id, check, st.just(provenance))) for check in of_sae)
    pairs = st.dictionaries(texts, st.none() | texts | small, max_size=3)
    versions = st.dictionaries(texts, texts, max_size=3)
    return Record(
        started=draw(texts),
        wall_s=draw(st.floats(0, 1e6)),
        release=ReleaseFacts(
            name=draw(hostile_names),
            source=draw(hostile_names),
            revision=draw(st.none() | texts),
            sae_ids=tuple(sae_ids),
        ),
        options=tuple(draw(pairs).items()),
        software=tuple(Package(name=name, version=version) for name, version in draw(versions).items()),
        platform=draw(texts),
        results=tuple(rows),
        exit_status=draw(st.none() | small),
    )
