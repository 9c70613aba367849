"""Several studies over the same batches: one clean pass serves them all, on text that of the text's checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import Reconstructions
from sae_checks.measuring.scoring import Batch, Fault, Progress, batch_of, batches
from sae_checks.model.interface import CleanPass, LanguageModel
from sae_checks.saes.splice import Splice

Losses_co = TypeVar("Losses_co", covariant=True)


class Study(Protocol[Losses_co]):
    """Sees every batch and its clean pass, and has losses at the end."""

    hooks: frozenset[str]
    """that the clean pass must capture."""
    n_looks: int
    """how often it wants to see all batches: 2 where it must know something of them before it measures."""

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, look: int) -> None:
        """Measure what it wants on *batch*; *look* counts from 0."""

    def losses(self) -> Losses_co:
        """What it measured."""


Passes = Callable[[frozenset[str]], Iterable[tuple[Batch, CleanPass]]]
"""The clean passes of a study's sequences, with these hooks captured: the same ones each time that it is called."""


def run(model: LanguageModel, studies: Sequence[Study[Losses_co]], passes: Passes) -> list[Losses_co | Fault]:
    """The losses of each of *studies* on *passes*; a Fault where one failed."""
    problems: list[str | None] = [None] * len(studies)
    for look in range(max((study.n_looks for study in studies), default=0)):
        first = max(study.n_looks for study in studies) - look
        at_it = [i for i, study in enumerate(studies) if study.n_looks >= first]
        for batch, clean in passes(frozenset().union(*(studies[i].hooks for i in at_it))):
            for i in at_it:
                if problems[i] is not None:
                    continue
                try:
                    studies[i].see(model, batch, clean, studies[i].n_looks - first)
                except (errors.SaeChecksError, RuntimeError) as problem:  # torch's errors, out of memory included
                    problems[i] = str(problem)
    return [
        study.losses() if problem is None else Fault(problem=problem)
        for study, problem in zip(studies, problems, strict=True)
    ]


def anew(model: LanguageModel, sequences: Sequences, *, n_batch_tokens: int, progress: Progress) -> Passes:
    """A clean pass over *sequences* for each look."""

    def passes(hooks: frozenset[str]) -> Iterator[tuple[Batch, CleanPass]]:
        for batch in batches(model, sequences, n_batch_tokens, progress):
            yield batch, model.clean(batch.tokens, hooks)

    return passes


class KeptPasses:
    """
    The clean passes of *sequences*, kept from the pass over the text that they are the beginnings of.

    A causal model computes the same at a position, whatever comes behind it.
    """

    def __init__(self, sequences: Sequences, hooks: Collection[str]) -> None:
        self.hooks = frozenset(hooks)
        self.n_sequences = len(sequences.rows)
        self._sequences = sequences
        self._kept: list[tuple[Batch, CleanPass]] = []

    def see(self, batch: Batch, clean: CleanPass) -> None:
        cut = batch_of(self._sequences, batch.sequences, batch.tokens.device)
        first = clean.first(cut.tokens.shape[1])
        if first.tokens.shape != clean.tokens.shape:  # a view would hold on to all of it
            first = replace(
                first,
                hidden=first.hidden.clone(),
                captured={hook: tuple(map(torch.clone, first.captured[hook])) for hook in self.hooks},
                boundaries={n_blocks: residual.clone() for n_blocks, residual in first.boundaries.items()},
            )
        self._kept.append((cut, first))

    def holds(self, sequences: Sequences, hooks: Collection[str]) -> bool:
        """Whether this is what a study of *sequences* with *hooks* asks for."""
        seen = sum(len(batch.sequences) for batch, _ in self._kept)
        is_same = seen == len(sequences.rows) and sequences.fingerprint == self._sequences.fingerprint
        return is_same and self.hooks >= set(hooks)

    def __call__(self, hooks: frozenset[str]) -> list[tuple[Batch, CleanPass]]:  # noqa: ARG002 -- all are there
        return self._kept


class ReconstructionSums:
    """`Reconstructions`, filled batch by batch."""

    def __init__(self, n_sequences: int) -> None:
        self._n = n_sequences
        self._counts = np.zeros((3, n_sequences), dtype=np.int64)  # tokens, active latents, most active on one
        self._squares = np.zeros((2, n_sequences))  # error, norm
        self._sum: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None = None

    def add(self, batch: Batch, made: Splice, counted: torch.Tensor) -> None:
        """What *made* says at the positions *counted* (batch, seq)."""
        rows = batch.sequences
        # On the CPU: MPS has no float64.
        target = torch.where(counted.cpu()[..., None], made.target.cpu().double(), 0)  # (batch, seq, d_out)
        n_active = torch.where(counted, made.n_active, 0).cpu()
        if self._sum is None:
            self._sum = np.zeros((self._n, target.shape[-1]))
        self._counts[0, rows] = counted.sum(-1).cpu().numpy()
        self._counts[1, rows] = n_active.sum(-1).numpy()
        self._counts[2, rows] = n_active.amax(-1).numpy()
        self._squares[0, rows] = summed(made.error_squared, counted)
        self._squares[1, rows] = target.square().sum((-1, -2)).numpy()
        self._sum[rows] = target.sum(-2).numpy()

    def sums(self) -> Reconstructions:
        """What was seen."""
        assert self._sum is not None  # there is no corpus without a batch
        n_tokens, n_active, n_most = self._counts
        return Reconstructions(
            n_tokens=n_tokens,
            n_active=n_active,
            n_active_most=n_most,
            error_squared=self._squares[0],
            norm_squared=self._squares[1],
            sum=self._sum,
        )


def summed(values: torch.Tensor, counted: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Sums of *values* (batch, seq) over the positions *counted*, per sequence, in float64."""
    return torch.where(counted.cpu(), values.cpu().double(), 0).sum(-1).numpy()
