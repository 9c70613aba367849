"""A record with one result, for the tests of records and of merging."""

import pytest
from builders import estimate, limit

from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, Provenance, SaeFacts
from sae_checks.record.results import Record, ReleaseFacts, Result, software

SHA = "0" * 64


@pytest.fixture
def run():
    """A record with one measured result."""
    provenance = Provenance(
        sae=SaeFacts(
            sae_id="a",
            hook="blocks.2.hook_resid_pre",
            hook_out="blocks.2.hook_resid_pre",
            head=None,
            architecture="standard",
            d_in=4,
            d_sae=8,
            n_training_context_tokens=16,
            weights=(FileHash(name="sae_weights.safetensors", sha256=SHA),),
        ),
        model=ModelFacts(
            source="model",
            architecture="GPT2LMHeadModel",
            backend="transformers",
            processing=("center_writing_weights",),
            dtype="float32",
            device="cpu",
            n_layers=4,
            d_model=4,
            n_context_tokens=32,
            weights=(FileHash(name="model.safetensors", sha256=SHA),),
        ),
        corpus=CorpusFacts(
            kind="text",
            source="text.jsonl",
            sha256=SHA,
            fingerprint=SHA,
            prepend_bos=True,
            n_sequences=64,
            n_scored_tokens=1000,
            n_context_tokens=32,
            n_truncated=1,
        ),
    )
    result = Result(
        sae_id="a",
        check="ce_loss",
        outcome="passed",
        reason="good",
        limit=limit(),
        estimates=(estimate("ce_increase", 0.1),),
        provenance=provenance,
    )
    return Record(
        started="2025-01-01T00:00:00+00:00",
        wall_s=1.5,
        release=ReleaseFacts(name="r", source="r", revision=None, sae_ids=("a",)),
        options=(("release", "r"), ("seed", 0), ("model", None)),
        software=software(),
        platform="Linux",
        results=(result,),
    )
