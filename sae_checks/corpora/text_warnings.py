"""What makes a text a poor exam, as far as its tokens and the release's configuration tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sae_checks.corpora.copies import N_RUN_TOKENS
from sae_checks.corpora.sequences import Sequences
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.release.release import Release, Sae

_N_FEWEST_TOKENS, _FEWEST_SHARE = 16.0, 1 / 16
"""
Effective number of distinct tokens below which a text is degenerate, absolute and as a share of the vocabulary. English
has 400 to 900 in GPT-2's tokens, 100 in a vocabulary of 512, and 18 in letters.
"""
_MOST_REPEATED = 0.2
"""Share of runs that repeat an earlier one of the same text; at most 0.12 in any of 2,600 documents looked at."""


def of_tokens(sequences: Sequences, n_vocabulary: int) -> Iterator[str]:
    """Yield a sentence for each sign of degenerate text."""
    real = np.arange(sequences.tokens.shape[1]) < sequences.lengths[:, None]  # (n_sequences, n_positions)
    _, counts = np.unique(sequences.tokens[real], return_counts=True)
    shares = counts / counts.sum()
    n_effective = float(np.exp(-(shares * np.log(shares)).sum()))
    if n_effective < min(_N_FEWEST_TOKENS, _FEWEST_SHARE * n_vocabulary):
        yield f"few distinct tokens, as varied as {n_effective:.1f} equally frequent ones"
    if (share := _repeated_share(sequences)) > _MOST_REPEATED:
        yield f"{100 * share:.0f} % of its runs of {N_RUN_TOKENS} tokens repeat an earlier one of the same text"


def of_training(source: CorpusSource, release: Release) -> Iterator[str]:
    """Yield a sentence if SAEs of *release* were trained on *source*, as their configurations say."""
    name = str(source.path) if source.dataset is None else source.dataset.repo_id
    saes = [sae for sae in release.saes if isinstance(sae, Sae)]
    n_trained = sum(sae.dataset_path == name for sae in saes)
    if n_trained:
        yield f"{n_trained} of {len(saes)} SAEs were trained on it (dataset_path), so it may not be held out"


def _repeated_share(sequences: Sequences) -> float:
    """Share of the runs of tokens that repeat an earlier run of their sequence."""
    n_runs = n_distinct = 0
    odd = np.random.default_rng(0).integers(2**62, size=N_RUN_TOKENS, dtype=np.uint64) * 2 + 1
    for tokens, length in zip(sequences.tokens, sequences.lengths, strict=True):
        if length > N_RUN_TOKENS:
            windows = np.lib.stride_tricks.sliding_window_view(tokens[:length].astype(np.uint64), N_RUN_TOKENS)
            hashes = windows @ odd  # modulo 2 ** 64
            n_runs, n_distinct = n_runs + len(hashes), n_distinct + len(np.unique(hashes))
    return 1 - n_distinct / n_runs if n_runs else 0.0
