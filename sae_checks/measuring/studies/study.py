"""Studies: measurements that take more than one splice. Several of them share the same clean passes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import Reconstructions
from sae_checks.measuring.scoring import Batch, Fault, batch_of, batches
from sae_checks.model.interface import CleanPass, LanguageModel
from sae_checks.saes.splice import Splice

Losses_co = TypeVar("Losses_co", covariant=True)


class Study(Protocol[Losses_co]):
    """A measurement that is called with every batch and its clean pass."""

    hooks: frozenset[str]
    """hooks that the clean pass must capture."""
    n_epochs: int
    """how often it needs all batches: 2 if it estimates something before it measures."""

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, epoch: int) -> None:
        """Measure *batch*; *epoch* counts from 0."""

    def losses(self) -> Losses_co:
        """The losses over all batches."""


Passes = Callable[[frozenset[str]], Iterable[tuple[Batch, CleanPass]]]
"""hooks to capture -> the clean passes over a study's sequences, the same in every call."""


def run(
    model: LanguageModel,
    studies: Sequence[Study[Losses_co]],
    passes: Passes,
    progress: Callable[[Batch], None] = lambda _batch: None,
) -> list[Losses_co | Fault]:
    """
    Run *studies* on *passes*, and return the losses of each, or a Fault if it failed.

    *progress* is called when a study has measured a batch, `n_epochs` times per study and batch.
    """
    problems: list[str | None] = [None] * len(studies)
    # all studies end with the last epoch, so that studies with one epoch share it with those that have two
    for n_left in range(max((study.n_epochs for study in studies), default=0), 0, -1):
        active = [i for i, study in enumerate(studies) if study.n_epochs >= n_left]
        for batch, clean in passes(frozenset().union(*(studies[i].hooks for i in active))):
            for i in active:
                if problems[i] is None:
                    try:
                        studies[i].see(model, batch, clean, studies[i].n_epochs - n_left)
                    except (errors.SaeChecksError, RuntimeError) as problem:  # torch's errors, out of memory included
                        problems[i] = str(problem)
                progress(batch)
    return [
        study.losses() if problem is None else Fault(problem=problem)
        for study, problem in zip(studies, problems, strict=True)
    ]


def new_passes(model: LanguageModel, sequences: Sequences, *, n_batch_tokens: int) -> Passes:
    """`Passes` that run the model over *sequences* in every epoch."""

    def passes(hooks: frozenset[str]) -> Iterator[tuple[Batch, CleanPass]]:
        for batch in batches(model, sequences, n_batch_tokens, lambda *_: None):
            yield batch, model.clean(batch.tokens, hooks)

    return passes


class KeptPasses:
    """
    `Passes` kept from the pass over the text, cut to *sequences*, which are the beginnings of the text's sequences.

    They can be cut since in a causal model no position depends on later ones.
    """

    def __init__(self, sequences: Sequences, hooks: Collection[str]) -> None:
        self.hooks = frozenset(hooks)
        self.n_sequences = len(sequences.rows)
        self._sequences = sequences
        self._kept: list[tuple[Batch, CleanPass]] = []

    def see(self, batch: Batch, clean: CleanPass) -> None:
        """Keep the beginning of *clean*, the pass over *batch*."""
        cut = batch_of(self._sequences, batch.sequences, batch.tokens.device)
        first = clean.first(cut.tokens.shape[1])
        if first.tokens.shape != clean.tokens.shape:  # WHY clone: a view would keep the whole pass in memory
            first = replace(
                first,
                hidden=first.hidden.clone(),
                captured={hook: tuple(map(torch.clone, first.captured[hook])) for hook in self.hooks},
                boundaries={n_blocks: residual.clone() for n_blocks, residual in first.boundaries.items()},
            )
        self._kept.append((cut, first))

    def holds(self, sequences: Sequences, hooks: Collection[str]) -> bool:
        """Whether these are all passes over *sequences*, with *hooks* captured."""
        n_kept = sum(len(batch.sequences) for batch, _ in self._kept)
        is_same = n_kept == len(sequences.rows) and sequences.fingerprint == self._sequences.fingerprint
        return is_same and self.hooks >= set(hooks)

    def __call__(self, hooks: frozenset[str]) -> list[tuple[Batch, CleanPass]]:  # noqa: ARG002 -- all are captured
        return self._kept


class ReconstructionSums:
    """Accumulates `Reconstructions` batch by batch."""

    def __init__(self, n_sequences: int) -> None:
        self._n = n_sequences
        self._counts = np.zeros((3, n_sequences), dtype=np.int64)  # tokens, active latents, most of them on one token
        self._squares = np.zeros((2, n_sequences))  # error, norm
        self._target_sum: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None = None

    def add(self, batch: Batch, made: Splice, counted: torch.Tensor) -> None:
        """Add the positions *counted* (batch, seq) of *made*."""
        rows = batch.sequences
        # on the CPU, since MPS has no float64
        target = torch.where(counted.cpu()[..., None], made.target.cpu().double(), 0)  # (batch, seq, d_out)
        n_active = torch.where(counted, made.n_active, 0).cpu()
        if self._target_sum is None:
            self._target_sum = np.zeros((self._n, target.shape[-1]))
        self._counts[0, rows] = counted.sum(-1).cpu().numpy()
        self._counts[1, rows] = n_active.sum(-1).numpy()
        self._counts[2, rows] = n_active.amax(-1).numpy()
        self._squares[0, rows] = sum_counted(made.error_squared, counted)
        self._squares[1, rows] = target.square().sum((-1, -2)).numpy()
        self._target_sum[rows] = target.sum(-2).numpy()

    def sums(self) -> Reconstructions:
        """The sums over all batches."""
        assert self._target_sum is not None  # every corpus has a batch
        n_tokens, n_active, max_active = self._counts
        return Reconstructions(
            n_tokens=n_tokens,
            n_active=n_active,
            max_active=max_active,
            error_squared=self._squares[0],
            norm_squared=self._squares[1],
            target_sum=self._target_sum,
        )


def sum_counted(values: torch.Tensor, counted: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Float64 sums (batch,) of *values* (batch, seq) over the positions *counted* (batch, seq)."""
    return torch.where(counted.cpu(), values.cpu().double(), 0).sum(-1).numpy()
