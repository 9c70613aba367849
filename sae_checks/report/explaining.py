"""Why an SAE is red, in lines of text: for the end of a run, the page, the summary, and `sae-checks explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sae_checks import checks
from sae_checks.explanation import LEAST_NATS, CostlyToken, Explanation, Source
from sae_checks.record.record import Result
from sae_checks.report import terminal, wording

RED = ("failed", "inconclusive", "error")
LEFT_OUT = "the damage is what the SAE leaves out, not what it adds"
N_LATENTS = 3
"""of each position that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One prediction, and under it what its loss comes from."""

    head: str
    lines: tuple[str, ...]


def section(results: Sequence[Result]) -> tuple[str, ...]:
    """Everything there is to say of one SAE: a line for every red check, then its costliest predictions."""
    ce_loss = next((r for r in results if r.check == checks.CE_LOSS.name), None)
    red = [wording.text(terminal.complaint(r)[0]) for r in results if r.outcome in RED] or ["no check of it is red"]
    return (*red, *_lines(ce_loss))


def told(explanation: Explanation) -> tuple[Told, ...]:
    """Each prediction in words."""
    return tuple(Told(head=_head(token), lines=tuple(_of_token(token))) for token in explanation.tokens)


def _lines(ce_loss: Result | None) -> Iterator[str]:
    if ce_loss is None or ce_loss.explanation is None:
        why = "it was not asked for" if ce_loss is None else wording.text(ce_loss.reason.partition("\n")[0])
        yield f"nothing to explain from: an explanation is of the check ce_loss: {why}"
        return
    if ce_loss.worst:
        places = (f"{wording.number(each.mean_increase)} over document {each.document}" for each in ce_loss.worst)
        yield f"worst sequences, nats/token within the training context: {', '.join(places)}"
    if ce_loss.explanation.why_none is not None:
        yield f"nothing to explain: {wording.text(ce_loss.explanation.why_none)}"
    for each in told(ce_loss.explanation):
        yield each.head
        yield from (f"  {line}" for line in each.lines)


def _head(token: CostlyToken) -> str:
    return f"document {token.document}, token {token.position}: …{_shown(token.before)}▸{_shown(token.token)}◂"


def _of_token(token: CostlyToken) -> Iterator[str]:
    clean, spliced = map(wording.number, (token.probability_clean, token.probability_spliced))
    instead = "still the most probable token"
    if token.instead is not None and token.probability_instead is not None:
        instead = (
            f"instead it predicts {_quoted(token.instead)} with probability {wording.number(token.probability_instead)}"
        )
    yield f"probability {clean} clean, {spliced} spliced ({wording.number(token.increase_nats)} nats more): {instead}"
    if not token.sources:
        yield f"none of {token.n_positions} positions recovers {LEAST_NATS:g} nats when it alone is clean again"
    for source in token.sources:
        place = (
            "the one before" if source.position == token.position - 1 else f"{token.position - source.position} before"
        )
        recovers = f"recovers {wording.number(source.recovered_nats)} nats{_reconstructed(source)}"
        yield f"clean again at token {source.position} {_quoted(source.token)} ({place}): {recovers}"
        yield from (f"  {line}" for line in _of_latents(source))


def _reconstructed(source: Source) -> str:
    if source.length_ratio is None:
        return ""
    alike = "" if source.cosine is None else f", cosine {wording.number(source.cosine)}"
    return f" (reconstructed at {source.length_ratio:.0%} of its length{alike})"


def _of_latents(source: Source) -> Iterator[str]:
    if source.why_none is not None:
        yield f"no single latent can be taken out: {wording.text(source.why_none)}"
    if source.n_active is None:
        return
    helpful = [latent for latent in source.latents if latent.recovered_nats >= LEAST_NATS]
    most = "" if source.n_taken_out == source.n_active else f" (tried: the {source.n_taken_out} that write most)"
    if not helpful:
        of = f"none of {source.n_active} active latents{most} recovers {LEAST_NATS:g} nats when it is taken out"
        yield f"{of}: {_together(source)}"
        return
    best = helpful[0].recovered_nats
    of_it = "more than that" if best > source.recovered_nats else "of that"
    yield f"of {source.n_active} active latents{most} the best, taken out, recovers {wording.number(best)} nats {of_it}"
    for latent in helpful[:N_LATENTS]:
        yield (
            f"latent {latent.latent} taken out: recovers {wording.number(latent.recovered_nats)} nats; activation "
            f"{wording.number(latent.activation)}, {latent.norm_share:.0%} of the decoded norm"
        )


def _together(source: Source) -> str:
    """What it means that no single latent is to blame."""
    if source.all_out_nats is None or source.all_out_nats < LEAST_NATS:
        return LEFT_OUT
    return f"no single one is to blame; all of them taken out recover {wording.number(source.all_out_nats)}"


def _shown(text: str) -> str:
    return wording.token(text)


def _quoted(text: str) -> str:
    return f"'{_shown(text)}'"
