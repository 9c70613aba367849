"""stories260K, its SAEs and its text, from a folder: a real model that was trained, not drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from random_release import Shape

from sae_checks.corpora.sequences import Convention, Sequences, TokenRow, build
from sae_checks.model import hugging_face, transformer_lens, transformers_files

MODEL, SAES, TEXT = "stories260K", "stories260K-res-saes", "stories/eval.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stories:
    """What lies there, in both sides' hands."""

    shape: Shape
    model: hugging_face.HuggingFaceModel
    hooked: Any  # Any: TransformerLens is not typed
    saes: list[Any]  # Any: sae_lens ships no types
    texts: tuple[str, ...]

    def sequences(self, *, n_context: int, n_most: int) -> Sequences:
        """The beginnings of the first documents that are long enough, behind a BOS, which is not scored."""
        tokenizer = self.model.tokenizer
        bos = tokenizer.bos_token_id
        assert bos is not None
        rows = []
        for i, text in enumerate(self.texts):
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(tokens) >= n_context - 1 and bos not in tokens and len(rows) < n_most:
                rows.append(TokenRow(row=i, tokens=[bos, *tokens[: n_context - 1]], n_given=1, was_cut=False))
        if not rows:
            raise SystemExit(f"no document of {TEXT} has {n_context - 1} tokens")
        convention = Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=n_context)
        return build(rows, convention, [bos], score_special=False)


def load(folder: Path) -> Stories:
    """
    Model, SAEs and text below *folder*.

    Raises:
        SystemExit: something is not there.
    """
    for name in (MODEL, SAES, TEXT):
        if not (folder / name).exists():
            raise SystemExit(f"{folder / name} is not there")
    from sae_lens import SAE

    cpu = torch.device("cpu")
    files = transformers_files.read(folder / MODEL, dtype="float32", device=cpu)
    peer = transformer_lens._hooked(files.model, ()).eval().requires_grad_(False)  # noqa: SLF001 -- as the tests do
    model = hugging_face.load(folder / MODEL, dtype="float32", device=cpu)
    saes = [SAE.load_from_disk(one.parent, device="cpu").eval() for one in sorted((folder / SAES).glob("*/cfg.json"))]
    texts = tuple(json.loads(line)["text"] for line in (folder / TEXT).read_text(encoding="utf-8").splitlines())
    config, block = files.model.config, files.model.model.layers[0]
    shape = Shape(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=config.num_attention_heads,
        n_vocabulary=config.vocab_size,
        n_positions=config.max_position_embeddings,
        d_sae=saes[0].cfg.d_sae,
        l0=sum(sae.cfg.metadata.l0 for sae in saes) / len(saes),
        n_block_weights=sum(weight.numel() for weight in block.parameters() if weight.ndim == 2),
    )
    return Stories(shape=shape, model=model, hooked=peer, saes=[s.requires_grad_(False) for s in saes], texts=texts)
