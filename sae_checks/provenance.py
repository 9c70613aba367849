"""What a measurement was made of. Ground: one wing measures it, the other keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHash:
    """One file that was read."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The language model as it was measured."""

    source: str
    architecture: str
    """its transformers class; HookedTransformer for a model in its own files."""
    backend: str
    processing: tuple[str, ...]
    """what TransformerLens did to the weights, by its own keywords."""
    dtype: str
    device: str
    n_layers: int
    d_model: int
    n_context_tokens: int
    weights: tuple[FileHash, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFacts:
    """A corpus as it was tokenised and masked."""

    kind: str
    """'text', 'lambada', 'cbt' or 'golden'."""
    source: str
    sha256: str
    """of the file; of a dataset, of the texts that were read from it."""
    fingerprint: str
    """sha256 over tokens and masks: equal fingerprints mean that the same predictions were scored."""
    prepend_bos: bool
    n_sequences: int
    n_scored_tokens: int
    n_context_tokens: int
    n_cut: int
    """sequences or items that lost tokens because they were longer than the context."""
    n_listed: int | None = None
    """documents or items of the whole source; None: it goes on behind what was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaeFacts:
    """One SAE as it was loaded."""

    sae_id: str
    hook: str
    hook_out: str
    """where it writes; *hook* but for transcoders."""
    head: int | None
    """the one attention head that it reads and writes."""
    architecture: str
    d_in: int
    d_sae: int
    n_training_context_tokens: int | None
    weights: tuple[FileHash, ...]
    """every file that it was made from, by its name in the release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One installed distribution."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything behind the result of one check of one SAE."""

    sae: SaeFacts | None
    """None for what concerns several SAEs."""
    model: ModelFacts
    corpus: CorpusFacts
