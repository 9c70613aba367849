"""What a measurement was made of: the SAE, the model and the corpus, each with the hashes of its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from sae_checks.fields import Count, Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHash:
    """One file that was read."""

    name: str
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The language model as it was run."""

    source: str
    """folder or Hub repository."""
    architecture: str
    """transformers class; HookedTransformer for a model in TransformerLens's own files."""
    backend: str
    """transformers or transformer-lens."""
    processing: tuple[str, ...]
    """what TransformerLens did to the weights, by its own keywords; empty for transformers."""
    dtype: str
    device: str
    n_layers: Count
    d_model: Count
    n_context_tokens: Count
    """longest sequence that the model takes."""
    weights: tuple[FileHash, ...]
    """every file that the model was made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFacts:
    """A corpus as it was tokenised and masked."""

    kind: Annotated[str, Meta(pattern="^(text|lambada|cbt|golden)$")]
    source: str
    """file, or dataset on the Hub."""
    sha256: Sha256
    """of the file; of a dataset, of the rows that were read."""
    fingerprint: Sha256
    """of tokens and masks: with equal fingerprints the same predictions were scored."""
    prepend_bos: bool
    """whether every sequence starts with a BOS token."""
    n_sequences: Count
    """sequences or items of the plan; of an SAE that was extended, all that were measured."""
    n_scored_tokens: Count
    """predictions that were scored in these."""
    n_context_tokens: Count
    """longest sequence, in tokens."""
    n_truncated: Count
    """sequences or items that lost tokens because they were longer than the context."""
    n_listed: Count | None = None
    """documents or items of the whole source; None: unknown, more follow after those that were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaeFacts:
    """One SAE as it was loaded."""

    sae_id: str
    hook: str
    """activation that the SAE reads."""
    hook_out: str
    """activation that it writes; the same as hook except for transcoders."""
    head: Count | None
    """index of the attention head that it reads and writes; None: it takes the whole activation."""
    architecture: str
    d_in: Count
    """width of the activation."""
    d_sae: Count
    """number of latents."""
    n_training_context_tokens: Count | None
    """length of the sequences that the SAE was trained on; None: unknown."""
    weights: tuple[FileHash, ...]
    """every file that the SAE was made from, by its name in the release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One installed distribution."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the result of one check of one SAE was measured on."""

    sae: SaeFacts | None
    """None: the check is of several SAEs."""
    model: ModelFacts
    corpus: CorpusFacts
