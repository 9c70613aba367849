"""Records for the tests of the report: a release of a few SAEs with all that a report shows."""

from dataclasses import replace

from builders import estimate, limit

from sae_checks import checks
from sae_checks.diagnosis import Corrected, Diagnosis, Place
from sae_checks.judging.changed_answers import ChangedAnswer, ChangedChoice
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.position_readings import Curve
from sae_checks.judging.propagation_readings import Downstream
from sae_checks.judging.study_readings import StackStep
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, Package, Provenance, SaeFacts
from sae_checks.record.results import Record, ReleaseFacts, Result

SHA = "ab" * 32
N_POSITIONS, N_TRAINING = 256, 64


def provenance(sae_id):
    return Provenance(
        sae=SaeFacts(
            sae_id=sae_id,
            hook=sae_id,
            hook_out=sae_id,
            head=None,
            architecture="standard",
            d_in=64,
            d_sae=512,
            n_training_context_tokens=N_TRAINING,
            weights=(FileHash(name="sae_weights.safetensors", sha256=SHA),),
        ),
        model=ModelFacts(
            source="a model",
            architecture="GPT2LMHeadModel",
            backend="transformers",
            processing=(),
            dtype="float32",
            device="cpu",
            n_layers=4,
            d_model=64,
            n_context_tokens=N_POSITIONS,
            weights=(FileHash(name="model.safetensors", sha256=SHA),),
        ),
        corpus=CorpusFacts(
            kind="text",
            source="text.jsonl",
            sha256=SHA,
            fingerprint=SHA,
            prepend_bos=True,
            n_sequences=256,
            n_scored_tokens=65024,
            n_context_tokens=N_POSITIONS,
            n_truncated=0,
        ),
    )


def curve(measure, unit, at):
    """A curve whose value at a position is *at* of it."""
    value = tuple(at(position) for position in range(N_POSITIONS))
    return Curve(
        measure=measure,
        unit=unit,
        position=tuple(range(N_POSITIONS)),
        value=value,
        low=tuple(x - 0.01 for x in value),
        high=tuple(x + 0.01 for x in value),
        n_sequences=(256,) * N_POSITIONS,
    )


def worst_sequence(document=3):
    return WorstSequence(
        document_index=document,
        mean_increase_nats_per_token=1.5,
        first_position=10,
        tokens=(" the", " fox", "\n", " <jumps>", "|"),
        increase_nats=(0.05, 4.5, None, 0.7, -0.2),
    )


def choice_flip(way="lost", instead="cow"):
    return ChangedChoice(
        query_index=4,
        change=way,
        passage_end="They all sat down.",
        question="The XXXXX slept.",
        answer="hen",
        chosen_instead=instead,
        probability_clean=0.7,
        probability_spliced=0.3,
    )


def of_sae(sae_id, *, later=(), outcome="passed", value=0.05):
    """What a run says of one SAE that is *outcome* in the cross-entropy and passes the rest."""
    made_of = provenance(sae_id)
    bare = Result(sae_id=sae_id, check="ce_loss", outcome=outcome, reason="as told", limit=limit(), provenance=made_of)
    flip = ChangedAnswer(
        item_index=1,
        change="lost",
        passage_end="he went to",
        answer="Rome",
        probability_clean=0.9,
        probability_spliced=0.1,
    )
    cells = tuple(
        Downstream(
            sae_id=each,
            hook=each,
            relative_error=0.2,
            residual_error=0.2,
            error_growth=1.0,
            cosine=0.9,
            explained_variance_clean=0.95,
            explained_variance=0.9,
            l0_clean=10.0,
            l0=11.0,
        )
        for each in later
    )
    return (
        replace(
            bare, estimates=(estimate("ce_increase", value), estimate("kl", value)), worst_sequences=(worst_sequence(),)
        ),
        replace(
            bare,
            check="lambada",
            outcome="passed",
            limit=limit("lambada", "accuracy_drop", value=0.06),
            estimates=(estimate("accuracy_drop", 0.01),),
            changed_answers=(flip, replace(flip, change="won", item_index=2)),
        ),
        replace(
            bare,
            check="long_context",
            outcome="passed",
            limit=limit("long_context", "degradation", value=9.0),
            estimates=(estimate("degradation", 0.4),),
            curves=(
                curve("ce_increase", "nats/token", lambda p: value + (5.0 if p >= N_TRAINING else 0.0)),
                curve("explained_variance", "fraction", lambda p: 0.97 - p / 1000),
            ),
        ),
        replace(
            bare,
            check="sparsity",
            outcome="passed",
            limit=limit("sparsity", "explained_variance", "min", 0.9),
            estimates=(estimate("l0", 12.0), estimate("explained_variance", 0.95)),
        ),
        replace(
            bare,
            check="propagation",
            outcome="passed",
            limit=limit("propagation", "amplification_last", value=0.7),
            estimates=(estimate("own_error", 0.4), estimate("amplification_last", 0.5)),
            downstream=cells,
        ),
        replace(bare, check="cbt", outcome="not_measured", reason="no queries", limit=None, provenance=None),
    )


def run(n_saes=3, *, red=("blocks.1.hook_resid_pre",), release="a-release"):
    """A record of *n_saes* SAEs, those of *red* failing by their cross-entropy; and of their stack, which passes."""
    ids = [f"blocks.{i}.hook_resid_pre" for i in range(n_saes)]
    results = [
        result
        for i, sae_id in enumerate(ids)
        for result in of_sae(
            sae_id,
            later=ids[i + 1 :],
            outcome="failed" if sae_id in red else "passed",
            value=2.0 if sae_id in red else 0.05,
        )
    ]
    steps = tuple(
        StackStep(sae_id=each, estimates=(estimate("stack_ce_increase", 0.1 * 4**i),)) for i, each in enumerate(ids)
    )
    stacked = Result(
        sae_id="all of resid",
        check="stacked",
        outcome="passed",
        reason="good",
        limit=limit("stacked", "stack_ce_increase", value=1e6),
        estimates=(estimate("stack_ce_increase", 0.1 * 4 ** (n_saes - 1)),),
        stack_steps=steps,
        provenance=replace(provenance(ids[0]), sae=None),
    )
    return Record(
        started="2025-01-01T00:00:00+00:00",
        wall_s=80.3,
        release=ReleaseFacts(name=release, source="a folder", revision=None, sae_ids=tuple(ids)),
        options=(("release", release), ("profile", "release"), ("seed", 0), ("model", None)),
        software=(Package(name="torch", version="2.0"),),
        platform="Linux",
        results=(*results, stacked),
    )


def many(n_saes, *, every=6, has_baseline=True):
    """A record of *n_saes* SAEs with every check, every *every*th SAE red, and what a real run has of each."""
    words = tuple(f" word{i}" for i in range(100))
    text = WorstSequence(
        document_index=1,
        mean_increase_nats_per_token=2.0,
        first_position=0,
        tokens=words,
        increase_nats=tuple(1.5 if i % 7 == 0 else 0.01 for i in range(100)),
    )
    ids = [f"blocks.{i // 2}.hook_resid_{'post' if i % 2 else 'pre'}" for i in range(n_saes)]
    results = []
    for i, sae_id in enumerate(ids):
        is_red = i % every == every - 1
        rows = of_sae(sae_id, later=ids[i + 1 :], outcome="failed" if is_red else "passed", value=0.05 + is_red * i)
        flips = tuple(replace(f, item_index=k) for r in rows for f in r.changed_answers[:1] for k in range(20))
        results += [
            replace(
                r,
                worst_sequences=(text,) * 5 if r.worst_sequences else (),
                changed_answers=flips if r.changed_answers else (),
                estimates=(estimate("l0", 8.0 + i), estimate("explained_variance", 0.99 - i / 1000))
                if r.check == "sparsity"
                else r.estimates,
                diagnosis=diagnosed() if r.outcome == "failed" else None,
                judged=None,
            )
            for r in rows
        ]
        for check in ("usable_context", "next_sae", "last_sae", "own_layer", "random_error"):
            measure = checks.named(check).measures[-1].name
            told = limit(check, measure, "min" if check in ("usable_context", "own_layer") else "max", 0.3)
            results.append(
                replace(rows[1], check=check, limit=told, estimates=(estimate(measure, 0.2),), changed_answers=())
            )
        if has_baseline:
            results += [_compared(sae_id, r.check, "failed" if is_red else "passed") for r in rows[:4]]
    steps = tuple(
        StackStep(sae_id=each, estimates=(estimate("stack_ce_increase", 0.1 + i),)) for i, each in enumerate(ids)
    )
    stacked = replace(run(1).results[-1], stack_steps=steps)
    bare = run(1, release="a-release")
    return replace(
        bare,
        release=replace(bare.release, sae_ids=tuple(ids)),
        options=(*bare.options, *([("baseline", "last")] if has_baseline else [])),
        results=(*results, stacked),
    )


def _compared(sae_id, check, outcome):
    return Result(
        sae_id=f"{sae_id}-{check}",
        check="no_regression",
        outcome=outcome,
        reason="0.2 > 0.1",
        limit=limit("no_regression", "difference", value=0.1),
        estimates=tuple(
            Estimate(measure=name, value=at, low=at - 0.05, high=at + 0.05, unit="nats/token", n=64)
            for name, at in (("before", 0.1), ("after", 0.3), ("difference", 0.2))
        ),
    )


def diagnosed():
    """A diagnosis with a number of each kind."""
    corrected = Corrected(explained_variance=0.97, ce_increase_nats_per_token=0.01, recovered_loss=0.99)
    return Diagnosis(
        sentence="explained variance 0.97 -> 0.45, the reconstruction is 1.6 times too long",
        n_sequences=16,
        explained_variance=0.45,
        ce_increase_nats_per_token=2.0,
        length_ratio=1.6,
        with_length=corrected,
        worst_latents=(3, 7),
        place=Place(hook="blocks.1.hook_resid_pre", best_explained_variance=0.9, corrected=corrected),
    )
