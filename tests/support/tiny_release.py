"""A release small enough to be judged in a second: a random GPT-2 and SAEs whose reconstruction is exact, or zero."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_checks.run.table import ROWS

N_CONTEXT = 32
N_TRAINING_CONTEXT = 16
D_MODEL = 16
N_TEXTS = 48
HOOKS = ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post")
CHECKS = tuple(row.check.name for row in ROWS if row.measured_by in ("text", "lambada", "cbt"))
N_CHECKS = len(CHECKS)
N_CELLS = N_CHECKS * len(HOOKS)
NOT_OF_THIS_RELEASE = {"l0_ratio", "l0_max_of_k", "accuracy_clean_beyond", "accuracy_drop_beyond"}
"""Measures that need a recorded L0, a TopK SAE, or passages longer than the training context."""
_WORDS = [first + rest for first in "bdfgklmnprst" for rest in ("ad", "ell", "int")]


@dataclass(frozen=True)
class TinyRelease:
    """Where everything lies that a run of the gate is given."""

    saes: Path
    model: Path
    corpus: Path
    lambada: Path
    cbt: Path

    def args(self, saes: Path | None = None, *, lambada: bool = True) -> list[str]:
        """The options of a run that judges *saes* (default: the identity SAEs)."""
        # "=", not a space: pytest takes a path that stands alone for a test path, and its rootdir from there.
        asked = {"release": saes or self.saes, "model": self.model, "corpus": self.corpus, "cbt": self.cbt}
        if lambada:
            asked["lambada"] = self.lambada
        # Studies have tests of their own: without them every check here is one splice, and an identity SAE passes it.
        return [f"--sae-{name}={value}" for name, value in {**asked, "study-sequences": 0}.items()]


def build(folder: Path) -> TinyRelease:
    """Write model, tokenizer, corpora and the identity SAEs below *folder*."""
    release = TinyRelease(
        saes=folder / "tiny-saes",
        model=folder / "model",
        corpus=folder / "corpus.jsonl",
        lambada=folder / "lambada.jsonl",
        cbt=folder / "cbt.jsonl",
    )
    tokenizer = _tokenizer()
    model = _model(len(tokenizer))
    model.save_pretrained(release.model)
    tokenizer.save_pretrained(release.model)
    texts = _own_words(model, tokenizer, seed=0, greedy_from=None)
    passages = _own_words(model, tokenizer, seed=1, greedy_from=9)
    write_jsonl(release.corpus, texts)
    write_jsonl(release.lambada, passages)
    queries = _own_choices(model, tokenizer)
    release.cbt.write_text("".join(json.dumps(query) + "\n" for query in queries), encoding="utf-8")
    for hook in HOOKS:
        write_sae(release.saes / hook, hook)
    return release


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def identity_weights(d_in: int = D_MODEL, scale: float = 1.0) -> dict[str, Any]:
    """Encoder [I, -I] and decoder [I; -I]: relu(x) - relu(-x) is x, to the last bit; *scale* is a power of two."""
    import torch

    eye = torch.eye(d_in)
    return {
        "W_enc": torch.cat([eye, -eye], dim=1).contiguous() * scale,
        "b_enc": torch.zeros(2 * d_in),
        "W_dec": torch.cat([eye, -eye], dim=0).contiguous() / scale,
        "b_dec": torch.zeros(d_in),
    }


def cfg_of(hook: str, d_in: int = D_MODEL, **metadata: Any) -> dict[str, Any]:
    """A cfg.json as SAE Lens 6 writes it; *metadata* overrides, None deletes."""
    described = {
        "hook_name": hook,
        "hook_head_index": None,
        "model_name": "tiny",
        "model_class_name": "HookedTransformer",
        "context_size": N_TRAINING_CONTEXT,
        "seqpos_slice": [None],
        "model_from_pretrained_kwargs": {"center_writing_weights": False},
        "prepend_bos": True,
        "sae_lens_version": "6.54.12",
        **metadata,
    }
    return {
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {key: value for key, value in described.items() if key not in metadata or value is not None},
        "d_sae": 2 * d_in,
        "d_in": d_in,
        "apply_b_dec_to_input": True,
        "dtype": "float32",
        "architecture": "standard",
    }


def write_sae(
    folder: Path,
    hook: str,
    *,
    d_in: int = D_MODEL,
    weights: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """One SAE in SAE Lens's format; the identity unless *weights* says otherwise."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(cfg_of(hook, d_in, **(metadata or {}))), encoding="utf-8")
    scale = 2.0 ** (sum(map(ord, hook)) % 11)  # no two SAEs of a release have the same weights
    save_file({**identity_weights(d_in, scale), **(weights or {})}, folder / "sae_weights.safetensors")
    return folder


def write_zero_sae(folder: Path, hook: str) -> Path:
    """An SAE that reconstructs nothing."""
    import torch

    return write_sae(folder, hook, weights={"W_dec": torch.zeros(2 * D_MODEL, D_MODEL)})


def copy_saes(release: TinyRelease, to: Path) -> Path:
    """The identity SAEs again, for a test to damage."""
    return Path(shutil.copytree(release.saes, to))


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<bos>", "<unk>", *_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", unk_token="<unk>")


def _model(n_vocabulary: int) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_embd=D_MODEL,
        n_head=2,
        n_positions=N_CONTEXT,
        vocab_size=n_vocabulary,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.6,  # wide, so that predictions depend on the text and the corpus below is far from noise
        tie_word_embeddings=False,
    )
    return GPT2LMHeadModel(config).eval()


def _own_words(model: Any, tokenizer: Any, *, seed: int, greedy_from: int | None) -> list[str]:
    """
    Texts that the model itself says: sampled, so that no other model predicts them better.

    With *greedy_from* a text ends behind that many words with the model's most probable one: a Lambada passage that it
    answers rightly.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(N_TEXTS, 1, dtype=torch.long)  # (texts, 1), the BOS
    n_words = N_CONTEXT + 8 if greedy_from is None else greedy_from + 1
    for n_done in range(n_words):
        with torch.no_grad():
            logits = model(tokens[:, -N_CONTEXT:]).logits[:, -1].float()  # (texts, vocabulary)
        logits[:, :2] = -torch.inf  # words only, neither <bos> nor <unk>
        sampled = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        chosen = logits.argmax(-1, keepdim=True) if n_done == greedy_from else sampled
        tokens = torch.cat([tokens, chosen], dim=1)
    return [" ".join(tokenizer.convert_ids_to_tokens(row[1:].tolist())) for row in tokens]


def _own_choices(model: Any, tokenizer: Any) -> list[dict[str, object]]:
    """Queries of four options each, the answer being the option whose filled query the model finds most probable."""
    import random

    import torch

    rng = random.Random(2)
    found = []
    for _ in range(10):
        sentences = [" ".join(rng.choices(_WORDS, k=6)) for _ in range(2)]
        question = " ".join([*rng.choices(_WORDS, k=3), "XXXXX", *rng.choices(_WORDS, k=2)])
        options = rng.sample(_WORDS, 4)
        nats = []
        for option in options:
            text = " ".join([*sentences, question.replace("XXXXX", option)])
            ids = torch.tensor([[0, *tokenizer(text)["input_ids"]]])  # (1, 19)
            with torch.no_grad():
                log_p = model(ids).logits.float().log_softmax(-1)[0, 12:-1]  # (6, vocabulary), the query's
            nats.append(float(log_p.gather(-1, ids[0, 13:, None]).sum()))
        answer = options[max(range(4), key=nats.__getitem__)]
        found.append({"sentences": sentences, "question": question, "answer": answer, "options": options})
    return found
