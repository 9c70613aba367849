"""
Train one SAE per residual hook of the demo language model, and damage one of them on purpose.

python -m sae_checks.demo.train_saes --seed 0 --out sae_checks/demo/files
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

from sae_checks.demo.stories import marked_stories, published
from sae_checks.demo.train_model import encode_stories

SAE_CONTEXT_TOKENS = 64  # BOS included; the model's own context is four times as long
N_STORIES = 24_000
SAE_SEED = 3_000_000  # apart from the three corpora of train_model
HOOKS = (*(f"blocks.{layer}.hook_resid_pre" for layer in range(4)), "blocks.3.hook_resid_post")
BROKEN_HOOK = "blocks.2.hook_resid_pre"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How every SAE is trained; the activations have a mean norm of sqrt(d_model) while it lasts."""

    l1_coefficient: float = 1.0
    d_sae: int = 512
    n_steps: int = 2000
    batch_tokens: int = 1024
    learning_rate: float = 1e-3
    warm_up_steps: int = 300  # of the L1 coefficient
    decay_steps: int = 700  # of the learning rate, at the end


@torch.no_grad()
def capture(model: GPT2LMHeadModel, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """The residual stream at every hook, each (n_sequences, seq - 1, d_model): BOS is left out."""
    kept: dict[str, list[torch.Tensor]] = {hook: [] for hook in HOOKS}
    blocks = model.transformer.h
    handles = [
        block.register_forward_pre_hook(lambda _, args, hook=hook: kept[hook].append(args[0][:, 1:]))
        for block, hook in zip(blocks, HOOKS, strict=False)
    ]

    def keep_last(_: torch.nn.Module, __: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        kept[HOOKS[-1]].append((output if isinstance(output, torch.Tensor) else output[0])[:, 1:])

    handles.append(blocks[-1].register_forward_hook(keep_last))
    for batch in tokens.split(256):
        model.transformer(batch)
    for handle in handles:
        handle.remove()
    return {hook: torch.cat(parts) for hook, parts in kept.items()}


def shuffled_batches(rows: torch.Tensor, batch_tokens: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless (batch_tokens, d_model) batches; every row once per epoch, short last batches dropped."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for indices in torch.randperm(len(rows), generator=generator).split(batch_tokens):
            if len(indices) == batch_tokens:
                yield rows[indices]


def metadata(hook: str) -> SAEMetadata:
    """What a user of the SAE must know, in the words of SAE Lens."""
    return SAEMetadata(
        dataset_path="sae-checks-demo-stories",
        hook_name=hook,
        model_name="sae-checks-demo",
        model_class_name="HookedTransformer",
        hook_head_index=None,
        context_size=SAE_CONTEXT_TOKENS,
        seqpos_slice=(None,),
        model_from_pretrained_kwargs={"center_writing_weights": False},
        prepend_bos=True,
        exclude_special_tokens=True,
        sequence_separator_token=None,
        disable_concat_sequences=True,
    )


def train_sae(hook: str, rows: torch.Tensor, recipe: Recipe, seed: int) -> StandardTrainingSAE:
    """An SAE of *rows*, (n_tokens, d_model), with the activation norm folded into its weights."""
    torch.manual_seed(seed)
    sae = StandardTrainingSAE(
        StandardTrainingSAEConfig(
            d_in=rows.shape[1],
            d_sae=recipe.d_sae,
            normalize_activations="expected_average_only_in",
            l1_coefficient=recipe.l1_coefficient,
            l1_warm_up_steps=recipe.warm_up_steps,
            metadata=metadata(hook),
        )
    )
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=recipe.n_steps * recipe.batch_tokens,
            train_batch_size_samples=recipe.batch_tokens,
            lr=recipe.learning_rate,
            lr_end=recipe.learning_rate / 10,
            lr_decay_steps=recipe.decay_steps,
            n_batches_for_norm_estimate=50,
        ),
        sae=sae,
        data_provider=shuffled_batches(rows, recipe.batch_tokens, seed),
    )
    return trainer.fit()


@torch.no_grad()
def mean_l0(sae: StandardTrainingSAE, rows: torch.Tensor) -> float:
    """Active latents per token of *rows*, (n_tokens, d_model)."""
    return (sae.encode(rows) != 0).sum(-1).double().mean().item()


def load_model(folder: Path) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """The trained language model, frozen, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def break_sae(sae: StandardTrainingSAE, rows: torch.Tensor) -> StandardTrainingSAE:
    """
    A copy whose W_dec is back at the scale of training, as if the activation norm had not been folded in.

    *rows* are activations, (n_tokens, d_model). Lengthening W_dec by half would not do: every block
    normalises its input, so that costs only 0.03 nats/token.
    """
    broken = copy.deepcopy(sae)
    broken.W_dec.data *= rows.shape[-1] ** 0.5 / rows.norm(dim=-1).mean()
    return broken


def main() -> None:
    """Write saes/ and saes-broken/ under --out, from the model found there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # at this size a second thread waits more than it works, and sums differ by it
    model, tokenizer = load_model(arguments.out / "model")
    marked = marked_stories(arguments.seed + SAE_SEED, min_tokens=SAE_CONTEXT_TOKENS)
    stories = [published(story) for story in islice(marked, N_STORIES)]
    training = capture(model, encode_stories(tokenizer, stories, SAE_CONTEXT_TOKENS))
    lines = (arguments.out / "text.jsonl").read_text(encoding="utf-8").splitlines()
    text = [json.loads(line)["text"] for line in lines]
    held_out = capture(model, encode_stories(tokenizer, text, SAE_CONTEXT_TOKENS))

    for folder in ("saes", "saes-broken"):
        shutil.rmtree(arguments.out / folder, ignore_errors=True)
    for hook in HOOKS:
        sae = train_sae(hook, training[hook].flatten(0, 1), Recipe(), arguments.seed)
        sae.cfg.metadata.l0 = mean_l0(sae, held_out[hook].flatten(0, 1))
        sae.save_inference_model(arguments.out / "saes" / hook)
        if hook == BROKEN_HOOK:
            break_sae(sae, held_out[hook].flatten(0, 1)).save_inference_model(arguments.out / "saes-broken" / hook)
        print(f"{hook}  L0 {sae.cfg.metadata.l0:.1f}  dead {sae.cfg.metadata.num_dead_features}", flush=True)


if __name__ == "__main__":
    main()
