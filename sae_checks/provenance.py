"""Describes what a result was measured on: the SAE, the model and the corpus, with the hashes of their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from sae_checks.fields import Count, Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHash:
    """One file that was read, by name and hash."""

    name: str
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The language model as it was run."""

    source: str
    """folder or Hub repository."""
    architecture: str
    """class of transformers; HookedTransformer for a model in the file format of TransformerLens."""
    backend: str
    """transformers or transformer-lens."""
    processing: tuple[str, ...]
    """what TransformerLens does to the weights, as its keywords; empty for transformers."""
    dtype: str
    device: str
    n_layers: Count
    d_model: Count
    n_context_tokens: Count
    """longest sequence that the model takes."""
    weights: tuple[FileHash, ...]
    """every file that the model was loaded from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFacts:
    """A corpus as it was tokenised and masked."""

    kind: Annotated[str, Meta(pattern="^(text|lambada|cbt|golden)$")]
    source: str
    """file, or dataset on the Hub."""
    sha256: Sha256
    """hash of the file, or of the rows that were read of a dataset."""
    fingerprint: Sha256
    """hash of tokens and masks; with equal fingerprints the same predictions were scored."""
    prepend_bos: bool
    """whether every sequence starts with a BOS token."""
    n_sequences: Count
    """number of sequences or items that are planned to be measured."""
    n_scored_tokens: Count
    """number of predictions that are scored in them."""
    n_context_tokens: Count
    """length of the longest sequence, in tokens."""
    n_truncated: Count
    """number of sequences or items that were cut because they are longer than the context."""
    n_copies: Count = 0
    """number of documents or items left out because they repeat others, as far as they were looked at."""
    n_listed: Count | None = None
    """number of documents or items in the whole source, without copies; None: unknown, because not all was read."""
    warnings: tuple[str, ...] = ()
    """what makes the text a poor exam, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaeFacts:
    """One SAE as it was loaded."""

    sae_id: str
    hook: str
    """name of the activation that the SAE reads."""
    hook_out: str
    """name of the activation that it replaces; equal to `hook` except for transcoders."""
    head: Count | None
    """index of the attention head that it reads and replaces; None: it reads the whole activation."""
    architecture: str
    d_in: Count
    """width of the activation."""
    d_sae: Count
    """number of latents."""
    n_training_context_tokens: Count | None
    """length of the sequences that the SAE was trained on; None: unknown."""
    weights: tuple[FileHash, ...]
    """every file that the SAE was loaded from, by its name in the release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One installed distribution."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the result of one check was measured on."""

    sae: SaeFacts | None
    """None: the check measures a stack of SAEs."""
    model: ModelFacts
    corpus: CorpusFacts
