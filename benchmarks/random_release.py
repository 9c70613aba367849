"""GPT-2's architecture with random weights and a release of SAEs for it, for benchmarks: no file, no network."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
import transformers

from sae_checks.corpora.sequences import Convention, Sequences, TokenRow, build
from sae_checks.model.hugging_face import HuggingFaceModel
from sae_checks.release.release import Sae
from sae_checks.saes.sae import LoadedSae

N_CALIBRATION_TOKENS = 512
N_LATENTS_PER_CHUNK = 1 << 23
"""of one pass of calibration, over all its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is measured."""

    n_layers: int = 12
    d_model: int = 768
    n_heads: int = 12
    n_vocabulary: int = 50257
    n_positions: int = 1024
    d_sae: int = 24576
    l0: float = 60.0
    """active latents per token, on average over what the SAEs are calibrated on."""

    n_block_weights: int | None = None
    """in the matrices of a block; None: GPT-2's, 12 d_model^2."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """Those of gpt2-small-res-jb: before each block, and behind the last."""
        before = (f"blocks.{i}.hook_resid_pre" for i in range(self.n_layers))
        return (*before, f"blocks.{self.n_layers - 1}.hook_resid_post")


@dataclass
class NoTokenizer:
    """Stands where the benchmark brings tokens of its own; BOS is the last token, as GPT-2 has it."""

    bos_token_id: int

    @property
    def all_special_ids(self) -> list[int]:
        return [self.bos_token_id]


def model(shape: Shape, *, seed: int = 0) -> torch.nn.Module:
    """Random weights, large enough that every layer and every splice changes the predictions."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=shape.n_vocabulary,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_positions=shape.n_positions,
        initializer_range=0.05,
        bos_token_id=shape.n_vocabulary - 1,
        eos_token_id=shape.n_vocabulary - 1,
    )
    return cast(torch.nn.Module, transformers.GPT2LMHeadModel(config).eval())


def measured_model(raw: torch.nn.Module, shape: Shape) -> HuggingFaceModel:
    """*raw* as sae-checks runs it."""
    return HuggingFaceModel(raw, cast(Any, NoTokenizer(shape.n_vocabulary - 1)), source="random")


def sequences(shape: Shape, *, n_sequences: int, n_context: int, seed: int = 0) -> Sequences:
    """Random tokens behind a BOS, which is neither replaced nor scored."""
    bos = shape.n_vocabulary - 1
    drawn = torch.randint(bos, (n_sequences, n_context - 1), generator=torch.Generator().manual_seed(seed))
    return _sequences(drawn, bos, n_context)


@torch.inference_mode()
def own_sequences(raw: torch.nn.Module, shape: Shape, *, n_sequences: int, n_context: int, seed: int = 0) -> Sequences:
    """What *raw* itself says behind a BOS: only of such text it knows something that a splice can lose."""
    bos = shape.n_vocabulary - 1
    torch.manual_seed(seed)
    generate = cast(Any, raw).generate
    drawn = generate(
        torch.full((n_sequences, 1), bos),
        attention_mask=torch.ones(n_sequences, 1, dtype=torch.int64),
        do_sample=True,
        top_k=0,
        min_new_tokens=n_context - 1,
        max_new_tokens=n_context - 1,
        pad_token_id=bos,
        bad_words_ids=[[bos]],
    )
    return _sequences(drawn[:, 1:], bos, n_context)


def _sequences(drawn: torch.Tensor, bos: int, n_context: int) -> Sequences:
    rows = [TokenRow(row=i, tokens=[bos, *tokens], n_given=1, was_cut=False) for i, tokens in enumerate(drawn.tolist())]
    convention = Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=n_context)
    return build(rows, convention, [bos], score_special=False)


def saes(raw: torch.nn.Module, shape: Shape, hooks: tuple[str, ...], *, seed: int = 0) -> list[Any]:
    """An SAE of SAE Lens's for each of *hooks*, with random directions and as many active latents as was asked."""
    n_context = min(128, shape.n_positions)
    made = sequences(shape, n_sequences=-(-N_CALIBRATION_TOKENS // n_context), n_context=n_context, seed=seed + 1)
    clean = measured_model(raw, shape).clean(torch.from_numpy(made.tokens), set(hooks))
    replaced = torch.from_numpy(made.replaced)
    return [_sae(clean.activation(hook)[replaced], hook, shape, seed=seed + i) for i, hook in enumerate(hooks)]


@torch.inference_mode()
def _sae(x: torch.Tensor, hook: str, shape: Shape, *, seed: int) -> Any:  # Any: sae_lens ships no types
    """Calibrated on *x* (tokens, d_model): by the encoder's bias its L0, by the decoder's length its error."""
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

    metadata: Any = {"hook_name": hook, "model_name": "random", "context_size": shape.n_positions}
    sae = StandardSAE(
        StandardSAEConfig.from_dict(
            {
                "architecture": "standard",
                "d_in": shape.d_model,
                "d_sae": shape.d_sae,
                "dtype": "float32",
                "device": "cpu",
                "metadata": metadata,
            }
        )
    )
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(shape.d_sae, shape.d_model, generator=generator)
    directions /= directions.norm(dim=-1, keepdim=True)
    sae.b_dec.data = x.mean(0)
    sae.W_enc.data = directions.T.contiguous()
    few = x[:: max(1, len(x) * shape.d_sae // N_LATENTS_PER_CHUNK)] - sae.b_dec
    before = (few @ sae.W_enc).flatten()  # (tokens * d_sae,)
    n_active = round(shape.l0 * len(few))
    sae.b_enc.data.fill_(-float(before.topk(n_active).values[-1]))
    latents = torch.relu(few @ sae.W_enc + sae.b_enc)
    made = latents @ directions
    sae.W_dec.data = directions * float((made * few).sum() / made.square().sum())
    return sae.eval().requires_grad_(False)


def measured_sae(sae: Any, *, n_context: int) -> LoadedSae:  # Any: as above
    """*sae* as sae-checks runs it: the same weights, not a copy."""
    hook = sae.cfg.metadata.hook_name
    described = SimpleNamespace(sae_id=hook, hook=hook, hook_out=hook, n_training_context_tokens=n_context)
    return LoadedSae(cast(Sae, described), sae, files={}, center=False, head_slice=slice(0, None))
