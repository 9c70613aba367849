"""Batches of sequences of similar length, and the scores of their predictions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import Counts, Flags, Span
from sae_checks.model.interface import LanguageModel

N_LOGITS_PER_CHUNK = 1 << 24

Progress = Callable[[int, int], None]
"""called with (tokens done, all tokens) at the start and after every batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The reason why one SAE could not be measured."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Some sequences, cut to the longest of them. rows: one for each scored position."""

    tokens: torch.Tensor  # (batch, seq)
    replaced: torch.Tensor  # (batch, seq)
    scored: torch.Tensor  # (batch, seq)
    targets: torch.Tensor  # (rows,) the token after the position
    row: Counts  # (rows,) index of the sequence in its corpus
    position: Counts  # (rows,) index in the sequence
    sequences: Counts  # (batch,) indices in the corpus


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Scores at each scored position of a batch, in the order of `Batch.row`. All (rows,)."""

    ce_nats: NDArray[np.float32]
    kl_nats: NDArray[np.float32]
    """KL(clean || this); zeros for the clean model."""
    correct: NDArray[np.bool_]
    """whether the target is the most probable token; empty without ranks."""
    rank: Counts
    """rank of the target: 1 plus the number of more probable tokens; empty without ranks."""
    entropy_nats: NDArray[np.float32]
    """of the clean model's prediction; empty for other models, and unless asked for."""
    surprise_variance: NDArray[np.float32]
    """variance of the CE (nats squared) that the clean model's prediction expects; empty like `entropy_nats`."""


def batches(
    model: LanguageModel, sequences: Sequences, n_batch_tokens: int, progress: Progress, *, part: slice = slice(None)
) -> Iterator[Batch]:
    """Batches of a *part* of *sequences*, the longest first; *progress* counts the sequences before *part* as done."""
    lengths = sequences.lengths[part]
    first = part.start or 0
    order = first + np.argsort(-lengths, kind="stable")
    n_all, n_done, start = int(sequences.lengths.sum()), int(sequences.lengths[:first].sum()), 0
    progress(n_done, n_all)
    while start < len(order):
        n_positions = int(sequences.lengths[order[start]])
        rows = order[start : start + max(1, n_batch_tokens // n_positions)]
        start += len(rows)
        yield batch_of(sequences, rows, model.device)
        n_done += int(sequences.lengths[rows].sum())
        progress(n_done, n_all)


def round_ends(rows: Counts, n_per_round: int, also: Collection[int] = ()) -> tuple[int, ...]:
    """
    Numbers of sequences after which rounds end, in rising order: each *n_per_round* items, *also*, and all.

    Args:
        rows: (n_sequences,) index of each sequence's item. A run of equal indices, such as the options of a query, is
            never divided.
        n_per_round: items per round.
        also: further ends.
    """
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    ends = {*starts[n_per_round::n_per_round].tolist(), *also, len(rows)}
    return tuple(sorted(end for end in ends if 0 < end <= len(rows)))


def batch_of(sequences: Sequences, rows: Counts, device: torch.device) -> Batch:
    """The batch of the sequences with the indices *rows*."""
    n_positions = int(sequences.lengths[rows].max())
    tokens = sequences.tokens[rows, :n_positions]
    scored = sequences.scored[rows, :n_positions]
    in_batch, position = np.nonzero(scored)
    return Batch(
        tokens=torch.from_numpy(tokens).to(device),
        replaced=torch.from_numpy(sequences.replaced[rows, :n_positions]).to(device),
        scored=torch.from_numpy(scored).to(device),
        targets=torch.from_numpy(tokens[in_batch, position + 1]).to(device),
        row=rows[in_batch],
        position=position,
        sequences=rows,
    )


@torch.inference_mode()
def score(
    model: LanguageModel, batch: Batch, hidden: Sequence[torch.Tensor], *, ranks: bool = True, entropies: bool = False
) -> list[Scores]:
    """
    Score final hidden states at the scored positions of *batch*.

    Memory holds the logits of one chunk of positions alone, for the clean model and one other.

    Args:
        model: computes logits.
        batch: tells which positions are scored, and their targets.
        hidden: (batch, seq, d_model) each; the first is the clean model's.
        ranks: also compute `Scores.correct` and `Scores.rank`, which doubles the time besides matrix products.
        entropies: also compute `Scores.entropy_nats` and `Scores.surprise_variance` of the clean model.
    """
    rows = [h[batch.scored] for h in hidden]  # each (rows, d_model)
    n_rows, device = len(batch.targets), model.device
    ce, kl = (torch.zeros(len(rows), n_rows, device=device) for _ in range(2))
    correct = torch.zeros(len(rows), n_rows if ranks else 0, dtype=torch.bool, device=device)
    rank = torch.zeros(len(rows), n_rows if ranks else 0, dtype=torch.int64, device=device)
    moments = torch.zeros(2, n_rows if entropies else 0, device=device)
    n_chunk = max(1, min(n_rows, n_rows_per_chunk(model.n_logits)))
    # WHY reused: getting new pages from the system takes longer than filling them
    buffers = [torch.empty(n_chunk, model.n_logits, device=device) for _ in range(3)]
    for start in range(0, n_rows, n_chunk):
        chunk = slice(start, min(start + n_chunk, n_rows))
        targets = batch.targets[chunk, None]  # (chunk, 1)
        log_p_clean, p_clean, other = (buffer[: len(targets)] for buffer in buffers)  # (chunk, n_logits)
        log_softmax_(model.logits(rows[0][chunk], out=log_p_clean))
        torch.exp(log_p_clean, out=p_clean)
        if entropies:
            moments[0, chunk] = torch.mul(p_clean, log_p_clean, out=other).sum(-1).neg()
            moments[1, chunk] = other.mul_(log_p_clean).sum(-1) - moments[0, chunk].square()
        for i, states in enumerate(rows):
            log_p = log_p_clean if i == 0 else log_softmax_(model.logits(states[chunk], out=other))
            log_p_target = log_p.gather(-1, targets)
            ce[i, chunk] = -log_p_target[:, 0]
            if ranks:
                rank[i, chunk] = 1 + (log_p > log_p_target).sum(-1)
                correct[i, chunk] = log_p.argmax(-1) == targets[:, 0]
            if i > 0:
                kl[i, chunk] = torch.sub(log_p_clean, log_p, out=log_p).mul_(p_clean).sum(-1)
    columns = [t.cpu().numpy() for t in (ce, kl, correct, rank)]
    entropy, variance = moments.cpu().numpy()
    return [
        Scores(
            ce_nats=c,
            kl_nats=k,
            correct=ok,
            rank=r,
            entropy_nats=entropy if i == 0 else entropy[:0],
            surprise_variance=variance if i == 0 else variance[:0],
        )
        for i, (c, k, ok, r) in enumerate(zip(*columns, strict=True))
    ]


def n_rows_per_chunk(n_logits: int) -> int:
    """Rows whose logits fill 64 MiB, a multiple of 32: fast for the product, and small enough for three chunks."""
    return max(32, N_LOGITS_PER_CHUNK // n_logits // 32 * 32)


def log_softmax_(logits: torch.Tensor) -> torch.Tensor:
    """Turn *logits* (rows, n_logits) into log-probabilities, in place."""
    if logits.device.type == "cpu":  # TRAP: `out=` may be the input only here, where the kernel reads a row first
        return torch.log_softmax(logits, -1, out=logits)
    return logits.sub_(logits.logsumexp(-1, keepdim=True))


class SpanSums:
    """Accumulates a `Span` batch by batch."""

    def __init__(self, n_sequences: int) -> None:
        self.n = np.zeros(n_sequences, dtype=np.int64)
        self.clean, self.spliced, self.kl = (np.zeros(n_sequences) for _ in range(3))

    def add(self, row: Counts, clean: Scores, spliced: Scores, chosen: Flags) -> None:
        """Add the *chosen* (rows,) of *clean* and *spliced*, which belong to the sequences *row* (rows,)."""
        n, row = len(self.n), row[chosen]
        self.n += np.bincount(row, minlength=n)
        self.clean += np.bincount(row, clean.ce_nats[chosen], n)  # bincount sums in float64
        self.spliced += np.bincount(row, spliced.ce_nats[chosen], n)
        self.kl += np.bincount(row, spliced.kl_nats[chosen], n)

    def span(self, rows: slice = slice(None)) -> Span:
        """The sums of the sequences *rows*."""
        return Span(
            n_tokens=self.n[rows],
            ce_clean_nats=self.clean[rows],
            ce_spliced_nats=self.spliced[rows],
            kl_nats=self.kl[rows],
        )


def add_within(spans: Sequence[SpanSums], batch: Batch, scores: Sequence[Scores], n_within: int) -> None:
    """Add *scores*, the clean model's and one for each of *spans*, at the first *n_within* positions."""
    clean, *others = scores
    for span, other in zip(spans, others, strict=True):
        span.add(batch.row, clean, other, batch.position < n_within)
