"""
Explains the loss of single predictions: unsplices one position at a time, and leaves out one latent at a time.

Everything else stays spliced. The model is resumed from the hook each time, with many such variants in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from sae_checks.explanation import LEAST_NATS, AblatedLatent, CostlyToken, RestoredPosition
from sae_checks.measuring.studies.single_latents import SingleLatents, single_latents
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import preprocess, replace_at

N_SOURCES = 3
"""positions to report for one prediction."""
N_SOURCES_WITH_LATENTS = 2
"""positions, the first of these, whose latents are left out one at a time."""
N_LATENTS = 5
"""latents to report for one position."""
N_TOKENS_BEFORE = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneSequence:
    """One sequence with the predictions to explain."""

    document: int
    tokens: torch.Tensor
    """(1, seq)."""
    replaced: torch.Tensor
    """(1, seq)."""
    texts: Sequence[str]
    """(seq,) text of each token, as it reads after the one before it."""
    predicted: tuple[int, ...]
    """positions of the tokens whose predictions are explained; above 0."""


def explain(
    model: LanguageModel,
    sae: Reconstructs,
    sequence: OneSequence,
    *,
    n_batch_tokens: int,
    reads: Callable[[int, int], str],
    progress: Callable[[int], None],
) -> tuple[CostlyToken, ...]:
    """
    Explain the predictions of *sequence*; those with a loss that is not finite are left out.

    Args:
        model: the model of *sae*.
        sae: spliced at every replaced position.
        sequence: the sequence and its predictions.
        n_batch_tokens: most tokens per forward pass.
        reads: (a token, the next one) -> the text of the second.
        progress: called with the number of tokens run since the last call.
    """
    with torch.inference_mode():
        probe = _Probe(model, sae, sequence, n_batch_tokens, progress)
        positions, recovered = probe.unsplice_each()
        tokens = []
        for i, position in enumerate(sequence.predicted):
            if not torch.isfinite(torch.stack([probe.clean_nats[i], probe.spliced_nats[i]])).all():
                continue
            sources = probe.restored_positions(i, positions, recovered[:, i])
            tokens.append(_token(probe, i, position, sources, reads))
        return tuple(tokens)


class _Probe:
    """One spliced sequence, and the losses of its predictions when the splice is changed."""

    def __init__(
        self,
        model: LanguageModel,
        sae: Reconstructs,
        sequence: OneSequence,
        n_batch_tokens: int,
        progress: Callable[[int], None],
    ) -> None:
        self.model, self.sae, self.sequence, self.progress = model, sae, sequence, progress
        n_positions = max(sequence.predicted)  # without the last predicted token, which no prediction reads
        self.tokens = sequence.tokens[:, :n_positions]
        self.replaced = sequence.replaced[:, :n_positions]
        self.n_per_batch = max(1, n_batch_tokens // n_positions)
        self.predictors = torch.tensor([position - 1 for position in sequence.predicted], device=model.device)
        self.targets = sequence.tokens[0, self.predictors + 1]  # (n_predicted,)
        self.clean = model.clean(self.tokens, {sae.hook, sae.hook_out})
        self.x = preprocess(self.clean.activation(sae.hook), sae.hook, sae)  # (1, seq, d_in)
        self.target = preprocess(self.clean.activation(sae.hook_out), sae.hook_out, sae)  # (1, seq, d_out)
        self.output = sae.reconstruct(self.x).output  # (1, seq, d_out)
        self.log_p_clean = self._log_p(self.clean.hidden)[0]  # (n_predicted, n_logits)
        self.log_p_spliced = self._log_p(self._resume(self.output, self.replaced))[0]
        self.clean_nats, self.spliced_nats = (self._ce_nats(p) for p in (self.log_p_clean, self.log_p_spliced))
        self._latents: dict[int, tuple[SingleLatents, torch.Tensor] | str] = {}  # by position

    def unsplice_each(self) -> tuple[list[int], torch.Tensor]:
        """The replaced positions, and the nats (n_positions, n_predicted) recovered by unsplicing each of them."""
        positions: list[int] = torch.nonzero(self.replaced[0])[:, 0].tolist()

        def variants(chunk: slice) -> tuple[torch.Tensor, torch.Tensor]:
            some = positions[chunk]
            replaced = self.replaced.repeat(len(some), 1)
            replaced[torch.arange(len(some)), some] = False
            return self.output.expand(len(some), -1, -1), replaced

        return positions, self._recovered(len(positions), variants)

    def restored_positions(
        self, i: int, positions: Sequence[int], recovered: torch.Tensor
    ) -> tuple[RestoredPosition, ...]:
        """
        The positions that cost the *i*-th prediction most, the first of them with their latents.

        *recovered* (n_positions,) are the nats that the prediction recovers by unsplicing each of *positions*.
        """
        nats_of = {p: nats for p, nats in zip(positions, recovered.tolist(), strict=True) if nats >= LEAST_NATS}
        costliest = sorted(nats_of, key=lambda p: (-nats_of[p], p))[:N_SOURCES]
        sources = [self._source(p, nats_of[p]) for p in costliest]
        with_latents = [self._with_latents(source, i) for source in sources[:N_SOURCES_WITH_LATENTS]]
        return (*with_latents, *sources[N_SOURCES_WITH_LATENTS:])

    def _source(self, position: int, recovered_nats: float) -> RestoredPosition:
        made, target = (t[0, position].cpu().double() for t in (self.output, self.target))  # MPS has no float64
        lengths, product = (float(made.norm()), float(target.norm())), float(made @ target)
        return RestoredPosition(
            position=position,
            token=self.sequence.texts[position],
            recovered_nats=rounded(recovered_nats),
            norm_ratio=rounded(lengths[0] / lengths[1]) if lengths[1] > 0 else None,
            cosine=rounded(product / (lengths[0] * lengths[1])) if min(lengths) > 0 else None,
        )

    def _with_latents(self, source: RestoredPosition, i: int) -> RestoredPosition:
        if source.position not in self._latents:
            self._latents[source.position] = self._leave_out_each(source.position)
        left_out = self._latents[source.position]
        if isinstance(left_out, str):
            return replace(source, why_no_latents=left_out)
        single, recovered = left_out[0], left_out[1][:, i]  # (1 + n,) without all latents, then without each
        ranked = torch.argsort(recovered[1:], descending=True, stable=True).tolist()
        usable = [k for k in ranked if bool(torch.isfinite(recovered[1 + k]))][:N_LATENTS]
        all_out = float(recovered[0])
        return replace(
            source,
            n_active_latents=single.n_active,
            n_ablated_latents=len(single.latents),
            all_ablated_recovered_nats=rounded(all_out) if bool(torch.isfinite(recovered[0])) else None,
            ablated_latents=tuple(
                AblatedLatent(
                    latent_index=int(single.latents[k]),
                    activation=rounded(float(single.activations[k])),
                    norm_share=rounded(float(single.norm_shares[k])),
                    recovered_nats=rounded(float(recovered[1 + k])),
                )
                for k in usable
            ),
        )

    def _leave_out_each(self, position: int) -> tuple[SingleLatents, torch.Tensor] | str:
        """
        Leave out the latents at *position*, all together and one at a time.

        Returns:
            The latents, and the recovered nats (1 + n, n_predicted); or a text that says why it cannot be done.
        """
        single = single_latents(self.sae, self.x, self.output, position)
        if isinstance(single, str):
            return single
        rows = torch.cat([single.without_any[None], single.without])  # (1 + n, d_out)

        def variants(chunk: slice) -> tuple[torch.Tensor, torch.Tensor]:
            output = self.output.repeat(len(rows[chunk]), 1, 1)
            output[:, position] = rows[chunk]
            return output, self.replaced.expand(len(output), -1)

        return single, self._recovered(len(rows), variants)

    def _recovered(self, n: int, variants: Callable[[slice], tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """
        Nats (n, n_predicted) by which each prediction's loss falls in *n* variants of the splice.

        *variants* gives a chunk of them: the SAE's output (rows, seq, d_out), and where it is spliced (rows, seq).
        """
        chunks = []
        for start in range(0, n, self.n_per_batch):
            output, replaced = variants(slice(start, min(n, start + self.n_per_batch)))
            log_p = self._log_p(self._resume(output, replaced))
            chunks.append(self.spliced_nats - self._ce_nats(log_p))
            self.progress(replaced.numel())
        return torch.cat([*chunks, self.spliced_nats.new_zeros(0, len(self.predictors))]).cpu()

    def _resume(self, output: torch.Tensor, replaced: torch.Tensor) -> torch.Tensor:
        """Final hidden states (rows, seq, d_model) with *output* (rows, seq, d_out) where *replaced* (rows, seq)."""
        clean = _repeat(self.clean, len(output))
        written = clean.activation(self.sae.hook_out)
        value = replace_at(written, output.to(written.dtype), replaced, self.sae.head_slice)
        return self.model.resume(clean, {self.sae.hook_out: replace_with(value)})

    def _log_p(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.model.logits(hidden[:, self.predictors]), -1)  # (rows, n_predicted, n_logits)

    def _ce_nats(self, log_p: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (..., n_predicted) of the targets."""
        index = self.targets.expand(log_p.shape[:-1])[..., None]
        return -log_p.gather(-1, index)[..., 0]


def _token(
    probe: _Probe, i: int, position: int, sources: tuple[RestoredPosition, ...], reads: Callable[[int, int], str]
) -> CostlyToken:
    sequence, log_p = probe.sequence, probe.log_p_spliced[i]
    best = int(log_p.argmax())
    is_other = best != int(probe.targets[i])
    last = int(sequence.tokens[0, position - 1])
    clean_nats, spliced_nats = float(probe.clean_nats[i]), float(probe.spliced_nats[i])
    return CostlyToken(
        document_index=sequence.document,
        position=position,
        preceding_text="".join(sequence.texts[max(0, position - N_TOKENS_BEFORE) : position]),
        token=sequence.texts[position],
        probability_clean=_probability(-clean_nats),
        probability_spliced=_probability(-spliced_nats),
        increase_nats=rounded(spliced_nats - clean_nats),
        spliced_top_token=reads(last, best) if is_other else None,
        spliced_top_probability=_probability(float(log_p[best])) if is_other else None,
        n_restored_positions=int(probe.replaced[0, :position].sum()),
        restored_positions=sources,
    )


def _repeat(clean: CleanPass, n: int) -> CleanPass:
    """The pass over one sequence, repeated *n* times without copying."""
    return CleanPass(
        tokens=clean.tokens.expand(n, -1),
        hidden=clean.hidden.expand(n, -1, -1),
        captured={hook: tuple(t.expand(n, -1, -1) for t in fired) for hook, fired in clean.captured.items()},
        boundaries={i: residual.expand(n, -1, -1) for i, residual in clean.boundaries.items()},
    )


def _probability(logprob: float) -> float:
    return min(1.0, rounded(float(torch.tensor(logprob, dtype=torch.float64).exp())))


def rounded(x: float) -> float:
    """*x* rounded to four significant digits, as in all examples of the record."""
    return float(f"{x:.4g}")
