"""
Train the demo language model and write its held-out corpora.

python -m sae_checks.demo.train_model --seed 0 --out sae_checks/demo/files
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from sae_checks.demo.stories import last_word_passages, marked_stories, published, recalled_tokens

BOS, UNK = "<bos>", "<unk>"
CONTEXT_TOKENS = 256  # BOS included
LAST_WORD_TOKENS = (25, 61)  # shortest and longest passage, BOS not included

# Seeds of the corpora are spread out so that no --seed below this distance can make two of them meet.
TRAIN_SEED, TEXT_SEED, LAST_WORD_SEED = 0, 1_000_000, 2_000_000
PHASE_SEED = 10_000_000  # between the training stories of one phase and the next
N_STORIES, N_PASSAGES = 400, 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of training; the learning rate is constant in all phases but the last."""

    context_tokens: int
    n_steps: int
    batch_sequences: int
    recall_weights: tuple[float, float]
    """weight of a recalled word in the loss at the first and last step; every other token weighs 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the language model is trained."""

    # Recall is learnt on short stories with few facts, under a heavy weight: with every token alike the same
    # batches had taught the grammar and no recall (5% of the words right) after 1,200 steps, against 81%.
    phases: tuple[Phase, ...] = (
        Phase(context_tokens=64, n_steps=2000, batch_sequences=32, recall_weights=(4.0, 4.0)),
        Phase(context_tokens=CONTEXT_TOKENS, n_steps=1600, batch_sequences=16, recall_weights=(4.0, 1.0)),
    )
    learning_rate: float = 3e-3
    warm_up_steps: int = 100
    weight_decay: float = 0.01
    initial_std: float = 0.1  # GPT-2's 0.02 belongs to d_model 768


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The stories of one step."""

    ids: torch.Tensor  # (batch, seq) int64, BOS first
    recalled: torch.Tensor  # (batch, seq) bool, the recalled words
    recall_weight: float


def build_tokenizer(stories: Iterable[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the words of marked *stories*, frequent first; adds no special tokens."""
    split = pre_tokenizers.Whitespace()
    counts = Counter(word for story in stories for word, _ in split.pre_tokenize_str(published(story)))
    words = sorted(counts, key=lambda word: (-counts[word], word))
    vocabulary = {word: index for index, word in enumerate([BOS, UNK, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=BOS,
        unk_token=UNK,
        model_max_length=CONTEXT_TOKENS,
    )


def encode_stories(tokenizer: PreTrainedTokenizerFast, stories: list[str], n_tokens: int) -> torch.Tensor:
    """BOS and the first n_tokens - 1 tokens of every story, (n_stories, n_tokens) int64."""
    # Cut here and not by the tokenizer, which would save the length it last cut at.
    encoded = tokenizer(stories, add_special_tokens=False)["input_ids"]
    return torch.tensor([[tokenizer.bos_token_id, *ids[: n_tokens - 1]] for ids in encoded])


def training_batches(
    tokenizer: PreTrainedTokenizerFast, phase: Phase, seed: int, forbidden: frozenset[str]
) -> Iterator[Batch]:
    """The batches of *phase*, with no story of *forbidden*."""
    candidates = marked_stories(seed, min_tokens=phase.context_tokens)
    allowed = (marked for marked in candidates if published(marked) not in forbidden)
    first, last = phase.recall_weights
    for step in range(phase.n_steps):
        stories = list(islice(allowed, phase.batch_sequences))
        ids = encode_stories(tokenizer, [published(marked) for marked in stories], phase.context_tokens)
        recalled = torch.zeros(ids.shape, dtype=torch.bool)
        for row, marked in enumerate(stories):
            columns = [index + 1 for index in recalled_tokens(marked)]  # + 1: BOS
            recalled[row, [column for column in columns if column < phase.context_tokens]] = True
        weight = first + (last - first) * step / phase.n_steps
        yield Batch(ids=ids, recalled=recalled, recall_weight=weight)


def new_model(n_vocabulary: int, initial_std: float) -> GPT2LMHeadModel:
    """
    An untrained GPT-2 of four layers and d_model 64, tied embeddings.

    The position embedding starts as sinusoids, since looking back a fixed distance is then a rotation, and is
    trained like any other weight. From random vectors 5% of the recalled words were right after 700 steps,
    from sinusoids 32%.
    """
    config = GPT2Config(
        vocab_size=n_vocabulary,
        n_positions=CONTEXT_TOKENS,
        n_embd=64,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=initial_std,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    n_waves = config.n_embd // 2
    frequencies = CONTEXT_TOKENS ** (-torch.arange(n_waves) / n_waves)  # (n_waves,) radians per token
    angles = torch.arange(CONTEXT_TOKENS)[:, None] * frequencies  # (CONTEXT_TOKENS, n_waves)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1) * 2**0.5  # unit mean square
    model.transformer.wpe.weight.data.copy_(waves * initial_std)
    return model


def new_optimizer(model: GPT2LMHeadModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; only the matrices of the blocks decay."""
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and ".h." in name]
    rest = [weight for name, weight in model.named_parameters() if weight.dim() != 2 or ".h." not in name]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def schedule(step: int, recipe: Recipe) -> float:
    """Factor on the learning rate: linear warm-up, constant, in the last phase a cosine to a twentieth."""
    if step < recipe.warm_up_steps:
        return (step + 1) / recipe.warm_up_steps
    n_constant = sum(phase.n_steps for phase in recipe.phases[:-1])
    done = max(0.0, (step - n_constant) / recipe.phases[-1].n_steps)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def weighted_loss(losses: torch.Tensor, recalled: torch.Tensor, recall_weight: float) -> torch.Tensor:
    """Weighted mean of *losses*, (batch, seq - 1) nats, of the tokens flagged in *recalled*, same shape."""
    weights = torch.where(recalled, recall_weight, 1.0)
    return (losses * weights).sum() / weights.sum()


def train(model: GPT2LMHeadModel, batches: Iterable[Batch], recipe: Recipe) -> None:
    """One step per batch, in the given order."""
    optimizer = new_optimizer(model, recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, recipe))
    model.train()
    start = time.monotonic()
    for step, batch in enumerate(batches):
        logits = model(batch.ids).logits[:, :-1]  # (batch, seq - 1, vocabulary)
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")
        recalled = batch.recalled[:, 1:]
        optimizer.zero_grad()
        weighted_loss(losses, recalled, batch.recall_weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 99:
            means = f"{losses.mean():.3f} nats/token, recalled words {losses[recalled].mean():.3f}"
            print(f"step {step + 1:5d}  {means}  {time.monotonic() - start:.0f} s", flush=True)


@torch.no_grad()
def last_word_accuracy(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, passages: list[str]) -> float:
    """Fraction of *passages* whose last token is the argmax given BOS and the tokens before it."""
    model.eval()
    n_correct = 0
    for passage in passages:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(passage, add_special_tokens=False)]
        n_correct += int(model(torch.tensor([ids[:-1]])).logits[0, -1].argmax()) == ids[-1]
    return n_correct / len(passages)


def write_jsonl(path: Path, texts: list[str]) -> None:
    """One {"text": ...} object per line."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write *tokenizer* under the class name that transformers 4 knows too; transformers 5 writes its own."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Write model/, text.jsonl and lambada.jsonl under --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    seed, recipe = arguments.seed, Recipe()
    torch.manual_seed(seed)
    marked = marked_stories(seed + TEXT_SEED, min_tokens=CONTEXT_TOKENS)
    text = [published(story) for story in islice(marked, N_STORIES)]
    shortest, longest = LAST_WORD_TOKENS
    cut = last_word_passages(seed + LAST_WORD_SEED, min_tokens=shortest, max_tokens=longest)
    passages = list(islice(cut, N_PASSAGES))
    tokenizer = build_tokenizer(islice(marked_stories(seed + TRAIN_SEED, min_tokens=CONTEXT_TOKENS), 2000))
    model = new_model(len(tokenizer), recipe.initial_std)
    phases = (
        training_batches(tokenizer, phase, seed + TRAIN_SEED + index * PHASE_SEED, frozenset(text))
        for index, phase in enumerate(recipe.phases)
    )
    train(model, chain.from_iterable(phases), recipe)

    arguments.out.mkdir(parents=True, exist_ok=True)
    write_jsonl(arguments.out / "text.jsonl", text)
    write_jsonl(arguments.out / "lambada.jsonl", passages)
    model.eval().save_pretrained(arguments.out / "model")
    save_tokenizer(tokenizer, arguments.out / "model")
    print(f"last-word accuracy {last_word_accuracy(model, tokenizer, passages):.4f}")


if __name__ == "__main__":
    main()
