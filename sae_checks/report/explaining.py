"""Explanations as lines of text, for the end of a run, the page, and `sae-checks explain`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sae_checks import checks
from sae_checks.explanation import LEAST_NATS, CostlyToken, Explanation, RestoredPosition
from sae_checks.record.results import Result
from sae_checks.report import terminal, wording

RED = ("failed", "inconclusive", "error")
N_LATENTS = 3
"""shown of each position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExplanation:
    """One costly prediction in words: what was predicted, and where its loss comes from."""

    title: str
    lines: tuple[str, ...]
    """indented by two spaces: about the latents of the position in the line above."""


def explain_sae(results: Sequence[Result], *, n_columns: int = 78) -> tuple[str, ...]:
    """
    The explanation of one SAE, from all its *results*, in lines of at most *n_columns*; two are left for an indent.

    The diagnosis and the red checks come first, then the costliest predictions.
    """
    ce_loss = next((r for r in results if r.check == checks.CE_LOSS.name), None)
    red = [r for r in results if r.outcome in RED]
    diagnoses = dict.fromkeys(wording.text(r.diagnosis.sentence) for r in red if r.diagnosis and r.diagnosis.sentence)
    messages = [_message(r) for r in red]
    lines = (*diagnoses, *(messages or ["none of its checks is red"]), *_explain_loss(ce_loss))
    return tuple(piece for line in lines for piece in _wrapped(line, n_columns))


def _message(result: Result) -> str:
    """The first line of the message of *result*, without the name of the SAE."""
    line, name = terminal.message_lines(result)[0], result.sae_id
    return wording.text(line.removesuffix(f" ({name})").replace(f" of {name}: ", ": ", 1))


def _wrapped(line: str, n_columns: int) -> list[str]:
    """*line* cut between words, what follows indented further; a short line stays as it is, spaces and all."""
    if len(line) <= n_columns:
        return [line]
    text = line.lstrip(" ")
    indent = " " * (len(line) - len(text))
    return textwrap.wrap(
        text, n_columns, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
    )


def explain_tokens(explanation: Explanation) -> tuple[TokenExplanation, ...]:
    """*explanation* in words, one item per costly prediction."""
    return tuple(TokenExplanation(title=_title(token), lines=tuple(_of_token(token))) for token in explanation.tokens)


def _explain_loss(ce_loss: Result | None) -> Iterator[str]:
    if ce_loss is None or ce_loss.explanation is None:
        why = "it was not selected" if ce_loss is None else wording.text(ce_loss.reason.partition("\n")[0])
        yield f"no explanation: it needs the check ce_loss: {why}"
        return
    if ce_loss.worst_sequences:
        sequences = (
            f"{wording.number(each.mean_increase_nats_per_token)} over document {each.document_index}"
            for each in ce_loss.worst_sequences
        )
        yield f"worst sequences, nats/token within the training context: {', '.join(sequences)}"
    if ce_loss.explanation.why_none is not None:
        yield f"nothing to explain: {wording.text(ce_loss.explanation.why_none)}"
    for each in explain_tokens(ce_loss.explanation):
        yield each.title
        yield from (f"  {line}" for line in each.lines)


def _title(token: CostlyToken) -> str:
    before, itself = wording.token(token.preceding_text), wording.token(token.token)
    return f"document {token.document_index}, token {token.position}: …{before}▸{itself}◂"


def _of_token(token: CostlyToken) -> Iterator[str]:
    clean, spliced = map(wording.number, (token.probability_clean, token.probability_spliced))
    instead = "still the most probable token"
    if token.spliced_top_token is not None and token.spliced_top_probability is not None:
        probability = wording.number(token.spliced_top_probability)
        instead = f"predicts {_quoted(token.spliced_top_token)} with {probability}"
    yield f"probability {clean} → {spliced} ({wording.number(token.increase_nats)} nats more): {instead}"
    if not token.restored_positions:
        n = token.n_restored_positions
        yield f"none of {n} positions, clean again, recovers {LEAST_NATS:g} nats"
    for source in token.restored_positions:
        distance = token.position - source.position
        recovers = f"recovers {wording.number(source.recovered_nats)} nats{_reconstructed(source)}"
        yield f"clean at {source.position} {_quoted(source.token)} ({distance} back): {recovers}"
        yield from (f"  {line}" for line in _of_latents(source))


def _reconstructed(source: RestoredPosition) -> str:
    if source.norm_ratio is None:
        return ""
    cosine = "" if source.cosine is None else f", cosine {wording.number(source.cosine)}"
    return f", length {source.norm_ratio:.0%}{cosine}"


def _of_latents(source: RestoredPosition) -> Iterator[str]:
    if source.why_no_latents is not None:
        yield f"latents cannot be taken out one by one: {wording.text(source.why_no_latents)}"
    if source.n_active_latents is None:
        return
    helpful = [latent for latent in source.ablated_latents if latent.recovered_nats >= LEAST_NATS]
    n_active, n_tried = source.n_active_latents, source.n_ablated_latents
    tried = "" if n_tried == n_active else f" (tried: the {n_tried} that write most)"
    if not helpful:
        none = f"none of {n_active} latents{tried}, taken out, recovers {LEAST_NATS:g} nats"
        yield f"{none}: {_all_taken_out(source)}"
        return
    best = helpful[0].recovered_nats
    how_much = "more than that" if best > source.recovered_nats else "of that"
    recovers = f"recovers {wording.number(best)} nats {how_much}"
    yield f"of {n_active} active latents{tried} the best, taken out, {recovers}"
    for latent in helpful[:N_LATENTS]:
        yield (
            f"latent {latent.latent_index}: recovers {wording.number(latent.recovered_nats)} nats; "
            f"activation {wording.number(latent.activation)}, {latent.norm_share:.0%} of the decoded norm"
        )


def _all_taken_out(source: RestoredPosition) -> str:
    """What follows when no single latent is to blame."""
    recovered = source.all_ablated_recovered_nats
    if recovered is None or recovered < LEAST_NATS:
        return "the SAE leaves something out"
    return f"no single one is to blame; all of them taken out recover {wording.number(recovered)}"


def _quoted(text: str) -> str:
    return f"'{wording.token(text)}'"
