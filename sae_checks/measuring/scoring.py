"""Sequences in batches of like length, and what is scored of them: the same for every pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import Counts, Span
from sae_checks.model.interface import LanguageModel

N_LOGITS_PER_CHUNK = 1 << 24

Progress = Callable[[int, int], None]
"""Told (tokens done, tokens in all) at the start and after every batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why one SAE could not be measured."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Some sequences, cut to the longest of them."""

    tokens: torch.Tensor  # (batch, seq)
    replaced: torch.Tensor  # (batch, seq)
    scored: torch.Tensor  # (batch, seq)
    targets: torch.Tensor  # (rows,) the token after each scored position
    row: Counts  # (rows,) sequence of each scored position
    position: Counts  # (rows,)
    sequences: Counts  # (batch,) their rows in the result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """At each scored position of a batch, in the order of `Batch.row`, all (rows,)."""

    ce_nats: NDArray[np.float32]
    kl_nats: NDArray[np.float32]
    """from the clean model; zeros for the clean model itself."""
    correct: NDArray[np.bool_]
    """the target is the most probable token; empty where ranks were not asked."""
    rank: Counts
    """of the target: 1 and the number of tokens that are more probable; empty where ranks were not asked."""


def batches(
    model: LanguageModel, sequences: Sequences, n_batch_tokens: int, progress: Progress, *, part: slice = slice(None)
) -> Iterator[Batch]:
    """Those of *part* of *sequences*, the longest first; progress counts from the first sequence of all."""
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
    Numbers of sequences at which a pass may pause, rising to that of all: after every *n_per_round* rows, and *also*.

    A document or item is a run of equal *rows* (n_sequences,), and not divided: the options of a query are one.
    """
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    ends = {*starts[n_per_round::n_per_round].tolist(), *also, len(rows)}
    return tuple(sorted(end for end in ends if 0 < end <= len(rows)))


def batch_of(sequences: Sequences, rows: Counts, device: torch.device) -> Batch:
    """The sequences *rows*, cut to the longest of them."""
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
def score(model: LanguageModel, batch: Batch, hidden: Sequence[torch.Tensor], *, ranks: bool = True) -> list[Scores]:
    """
    Score each of *hidden* (batch, seq, d_model) where the batch is scored; the first is the clean model's.

    *ranks*: also `Scores.correct` and `Scores.rank`, which take as long as all else that is no matrix product; without,
    they are empty. Logits are never kept: one chunk of the clean model's and one of another are in memory at a time.
    """
    rows = [h[batch.scored] for h in hidden]  # each (rows, d_model)
    n_rows, device = len(batch.targets), model.device
    ce, kl = (torch.zeros(len(rows), n_rows, device=device) for _ in range(2))
    correct = torch.zeros(len(rows), n_rows if ranks else 0, dtype=torch.bool, device=device)
    rank = torch.zeros(len(rows), n_rows if ranks else 0, dtype=torch.int64, device=device)
    n_most = max(1, min(n_rows, n_rows_per_chunk(model.n_logits)))
    # The same memory for every chunk: to get pages from the system takes longer than to fill them.
    room = [torch.empty(n_most, model.n_logits, device=device) for _ in range(3)]
    for start in range(0, n_rows, n_most):
        chunk = slice(start, min(start + n_most, n_rows))
        targets = batch.targets[chunk, None]  # (chunk, 1)
        clean, p_clean, other = (r[: len(targets)] for r in room)  # (chunk, n_logits)
        log_softmax_(model.logits(rows[0][chunk], out=clean))
        torch.exp(clean, out=p_clean)
        for i, of_one in enumerate(rows):
            log_p = clean if i == 0 else log_softmax_(model.logits(of_one[chunk], out=other))
            of_target = log_p.gather(-1, targets)
            ce[i, chunk] = -of_target[:, 0]
            if ranks:
                rank[i, chunk] = 1 + (log_p > of_target).sum(-1)
                correct[i, chunk] = log_p.argmax(-1) == targets[:, 0]
            if i > 0:
                kl[i, chunk] = torch.sub(clean, log_p, out=log_p).mul_(p_clean).sum(-1)
    found = [t.cpu().numpy() for t in (ce, kl, correct, rank)]
    return [
        Scores(ce_nats=of_ce, kl_nats=of_kl, correct=of_correct, rank=of_rank)
        for of_ce, of_kl, of_correct, of_rank in zip(*found, strict=True)
    ]


def n_rows_per_chunk(n_logits: int) -> int:
    """Rows whose logits fill 64 MiB, a multiple of 32: the product is at its fastest, and three chunks fit anywhere."""
    return max(32, N_LOGITS_PER_CHUNK // n_logits // 32 * 32)


def log_softmax_(logits: torch.Tensor) -> torch.Tensor:
    """*logits* (rows, n_logits) become their log-probabilities, in place."""
    if logits.device.type == "cpu":  # whose kernel reads a row before it writes it
        return torch.log_softmax(logits, -1, out=logits)
    return logits.sub_(logits.logsumexp(-1, keepdim=True))


class SpanSums:
    """Sums over one span of positions, per sequence."""

    def __init__(self, n_sequences: int) -> None:
        self.n = np.zeros(n_sequences, dtype=np.int64)
        self.clean, self.spliced, self.kl = (np.zeros(n_sequences) for _ in range(3))

    def add(
        self, row: Counts, clean: NDArray[np.float32], spliced: NDArray[np.float32], kl: NDArray[np.float32]
    ) -> None:
        n = len(self.n)
        self.n += np.bincount(row, minlength=n)
        self.clean += np.bincount(row, clean, n)  # float64 sums of float32 values
        self.spliced += np.bincount(row, spliced, n)
        self.kl += np.bincount(row, kl, n)

    def span(self, rows: slice = slice(None)) -> Span:
        return Span(
            n_tokens=self.n[rows],
            ce_clean_nats=self.clean[rows],
            ce_spliced_nats=self.spliced[rows],
            kl_nats=self.kl[rows],
        )
