"""Whether a corpus has enough sequences, passages or queries to decide a check. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_checks import errors
from sae_checks.judging.budget import N_LEAST, Budget
from sae_checks.plan.options import Options

if TYPE_CHECKING:
    from sae_checks.corpora.corpus import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One kind of corpus."""

    flag: str
    items: str
    is_list: bool
    """the whole of it decides exactly, however few items there are."""


_KINDS = {
    "text": _Kind(flag="--sae-corpus", items="documents", is_list=False),
    "lambada": _Kind(flag="--sae-lambada", items="passages", is_list=True),
    "cbt": _Kind(flag="--sae-cbt", items="queries", is_list=True),
}


def too_few(kind: str, source: str, n: int, options: Options) -> errors.UsageError | None:
    """
    Why no check can pass on a whole corpus of *kind* that has *n* sequences or items; None: there are enough.

    Args:
        kind: "text", "lambada" or "cbt".
        source: path or dataset, for the message.
        n: of all that there are, or of as many as *options* ask for.
        options: of the run.
    """
    of = _KINDS.get(kind)
    if of is None:
        return None
    least = N_LEAST if of.is_list else _n_least_to_pass(options.n_sequences)
    if n >= least:
        return None
    if of.is_list:
        attempt = f"{of.flag}=FILE with at least {least} {of.items}, or {of.flag}=none"
    else:
        enough = n >= _n_least_to_pass(n)
        attempt = f"--sae-sequences={n}" if enough else f"{of.flag}=FILE with at least {least} {of.items}"
    return errors.too_few_to_decide(of.flag, source, f"at least {least} {of.items}", f"{n} {of.items}", attempt)


def _n_least_to_pass(n_planned: int) -> int:
    return Budget(n_planned=n_planned, n_most=n_planned, n_checks=1).n_least_to_pass


def too_few_left(corpus: Corpus, options: Options) -> errors.UsageError | None:
    """`too_few` of a *corpus* that is tokenised: documents without a token to score are gone."""
    from sae_checks.measuring.measured import n_items  # WHY here: it imports torch

    return too_few(corpus.facts.kind, corpus.facts.source, n_items(corpus), options)
