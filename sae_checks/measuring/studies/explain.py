"""
Where the loss of one prediction comes from: positions put back to clean and latents taken out, one at a time.

All else stays spliced, and the model is run on from the hook each time, many of these runs in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from sae_checks.explanation import LEAST_NATS, CostlyToken, Source, TakenOut
from sae_checks.measuring.studies.single_latents import SingleLatents, single_latents
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import preprocess, replace_at

N_SOURCES = 3
"""positions that are told of one prediction."""
N_SOURCES_TAKEN_APART = 2
"""of these whose latents are taken out."""
N_LATENTS = 5
"""latents that are told of one position."""
N_TOKENS_BEFORE = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneSequence:
    """One sequence, from its beginning to the last token that is explained."""

    document: int
    tokens: torch.Tensor
    """(1, seq)."""
    replaced: torch.Tensor
    """(1, seq)."""
    texts: Sequence[str]
    """(seq,) each token as it reads behind the one before it."""
    predicted: tuple[int, ...]
    """positions of the tokens whose prediction is explained, each above 0."""


def explain(
    model: LanguageModel,
    sae: Reconstructs,
    sequence: OneSequence,
    *,
    n_batch_tokens: int,
    reads: Callable[[int, int], str],
    told: Callable[[int], None],
) -> tuple[CostlyToken, ...]:
    """
    Where the loss of *sequence*'s predictions comes from; one whose loss is not finite is left out.

    Args:
        model: runs the sequence.
        sae: spliced at every replaced position.
        sequence: of one document.
        n_batch_tokens: tokens per forward pass, at most.
        reads: (a token, the next one) -> the text of the second.
        told: told how many tokens were run.
    """
    with torch.inference_mode():
        probe = _Probe(model, sae, sequence, n_batch_tokens, told)
        back = probe.put_back()
        found = []
        for i, position in enumerate(sequence.predicted):
            if not torch.isfinite(torch.stack([probe.clean_nats[i], probe.spliced_nats[i]])).all():
                continue
            sources = probe.sources(i, back)
            found.append(_token(probe, i, position, sources, reads))
        return tuple(found)


class _Probe:
    """One sequence with the splice in place, and what its predictions cost when some of it is undone."""

    def __init__(
        self,
        model: LanguageModel,
        sae: Reconstructs,
        sequence: OneSequence,
        n_batch_tokens: int,
        told: Callable[[int], None],
    ) -> None:
        self.model, self.sae, self.sequence, self.told = model, sae, sequence, told
        n_positions = max(sequence.predicted)  # the last one predicts, and is not read
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
        self.log_p_spliced = self._log_p(self._resumed(self.output, self.replaced))[0]
        self.clean_nats, self.spliced_nats = (self._of_targets(p) for p in (self.log_p_clean, self.log_p_spliced))
        self._latents: dict[int, tuple[SingleLatents, torch.Tensor] | str] = {}

    def put_back(self) -> tuple[list[int], torch.Tensor]:
        """Replaced positions, and what each prediction costs less (n_positions, n_predicted) with each put back."""
        positions: list[int] = torch.nonzero(self.replaced[0])[:, 0].tolist()

        def undone(some: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
            replaced = self.replaced.repeat(len(some), 1)
            replaced[torch.arange(len(some)), some] = False
            return self.output.expand(len(some), -1, -1), replaced

        return positions, self._recovered(len(positions), lambda part: undone(positions[part]))

    def sources(self, i: int, back: tuple[list[int], torch.Tensor]) -> tuple[Source, ...]:
        """The positions that cost the *i*-th prediction most, the first of them with their latents."""
        positions, recovered = back
        of_one = {p: nats for p, nats in zip(positions, recovered[:, i].tolist(), strict=True) if nats >= LEAST_NATS}
        best = sorted(of_one, key=lambda p: (-of_one[p], p))[:N_SOURCES]
        found = [self._source(p, of_one[p]) for p in best]
        return tuple(
            self._with_latents(source, i) if rank < N_SOURCES_TAKEN_APART else source
            for rank, source in enumerate(found)
        )

    def _source(self, position: int, recovered_nats: float) -> Source:
        made, target = (t[0, position].cpu().double() for t in (self.output, self.target))  # MPS has no float64
        lengths, product = (float(made.norm()), float(target.norm())), float(made @ target)
        return Source(
            position=position,
            token=self.sequence.texts[position],
            recovered_nats=rounded(recovered_nats),
            length_ratio=rounded(lengths[0] / lengths[1]) if lengths[1] > 0 else None,
            cosine=rounded(product / (lengths[0] * lengths[1])) if min(lengths) > 0 else None,
        )

    def _with_latents(self, source: Source, i: int) -> Source:
        if source.position not in self._latents:
            self._latents[source.position] = self._taken_out(source.position)
        taken = self._latents[source.position]
        if isinstance(taken, str):
            return replace(source, why_none=taken)
        single, recovered = taken[0], taken[1][:, i]  # of all latents at once, then of each
        ranked = torch.argsort(recovered[1:], descending=True, stable=True).tolist()
        usable = [k for k in ranked if bool(torch.isfinite(recovered[1 + k]))][:N_LATENTS]
        all_out = float(recovered[0])
        return replace(
            source,
            n_active=single.n_active,
            n_taken_out=len(single.latents),
            all_out_nats=rounded(all_out) if bool(torch.isfinite(recovered[0])) else None,
            latents=tuple(
                TakenOut(
                    latent=int(single.latents[k]),
                    activation=rounded(float(single.activations[k])),
                    norm_share=rounded(float(single.norm_shares[k])),
                    recovered_nats=rounded(float(recovered[1 + k])),
                )
                for k in usable
            ),
        )

    def _taken_out(self, position: int) -> tuple[SingleLatents, torch.Tensor] | str:
        """The latents at *position*, and what predictions cost less (1 + n, n_predicted) without all and each."""
        single = single_latents(self.sae, self.x, self.output, position)
        if isinstance(single, str):
            return single
        rows = torch.cat([single.without_any[None], single.without])  # (1 + n, d_out)

        def undone(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
            output = self.output.repeat(len(rows[part]), 1, 1)
            output[:, position] = rows[part]
            return output, self.replaced.expand(len(output), -1)

        return single, self._recovered(len(rows), undone)

    def _recovered(self, n: int, undone: Callable[[slice], tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """
        What each prediction costs less (n, n_predicted) than with the whole splice, in *n* variants of it.

        *undone* gives of some of them what the SAE writes (rows, seq, d_out), and where (rows, seq).
        """
        found = []
        for start in range(0, n, self.n_per_batch):
            output, replaced = undone(slice(start, min(n, start + self.n_per_batch)))
            log_p = self._log_p(self._resumed(output, replaced))
            found.append(self.spliced_nats - self._of_targets(log_p))
            self.told(replaced.numel())
        return torch.cat([*found, self.spliced_nats.new_zeros(0, len(self.predictors))]).cpu()

    def _resumed(self, output: torch.Tensor, replaced: torch.Tensor) -> torch.Tensor:
        """Hidden states where the predictions are made, (rows, n_predicted, d_model)."""
        clean = _repeated(self.clean, len(output))
        written = clean.activation(self.sae.hook_out)
        value = replace_at(written, output.to(written.dtype), replaced, self.sae.head_slice)
        return self.model.resume(clean, {self.sae.hook_out: replace_with(value)})

    def _log_p(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.model.logits(hidden[:, self.predictors]), -1)  # (rows, n_predicted, n_logits)

    def _of_targets(self, log_p: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, (..., n_predicted)."""
        index = self.targets.expand(log_p.shape[:-1])[..., None]
        return -log_p.gather(-1, index)[..., 0]


def _token(
    probe: _Probe, i: int, position: int, sources: tuple[Source, ...], reads: Callable[[int, int], str]
) -> CostlyToken:
    sequence, log_p = probe.sequence, probe.log_p_spliced[i]
    best = int(log_p.argmax())
    is_other = best != int(probe.targets[i])
    last = int(sequence.tokens[0, position - 1])
    clean_nats, spliced_nats = float(probe.clean_nats[i]), float(probe.spliced_nats[i])
    return CostlyToken(
        document=sequence.document,
        position=position,
        before="".join(sequence.texts[max(0, position - N_TOKENS_BEFORE) : position]),
        token=sequence.texts[position],
        probability_clean=_probability(-clean_nats),
        probability_spliced=_probability(-spliced_nats),
        increase_nats=rounded(spliced_nats - clean_nats),
        instead=reads(last, best) if is_other else None,
        probability_instead=_probability(float(log_p[best])) if is_other else None,
        n_positions=int(probe.replaced[0, :position].sum()),
        sources=sources,
    )


def _repeated(clean: CleanPass, n: int) -> CleanPass:
    """The pass over one sequence as one over it *n* times, without a copy."""
    return CleanPass(
        tokens=clean.tokens.expand(n, -1),
        hidden=clean.hidden.expand(n, -1, -1),
        captured={hook: tuple(t.expand(n, -1, -1) for t in fired) for hook, fired in clean.captured.items()},
        boundaries={i: residual.expand(n, -1, -1) for i, residual in clean.boundaries.items()},
    )


def _probability(logprob: float) -> float:
    return min(1.0, rounded(float(torch.tensor(logprob, dtype=torch.float64).exp())))


def rounded(x: float) -> float:
    """To four significant digits, as examples are kept."""
    return float(f"{x:.4g}")
