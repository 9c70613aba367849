"""What the Hub serves in the tests: a GPT-2 of twelve narrow layers, the layout of gpt2-small-res-jb, and corpora."""

import io
import json
import random
from pathlib import Path

import torch
import transformers
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

N_LAYERS, D_MODEL, N_CONTEXT = 12, 8, 64
RELEASE = "gpt2-small-res-jb"
SAE_REPO = "jbloom/GPT2-Small-SAEs-Reformatted"
HOOKS = (*(f"blocks.{i}.hook_resid_pre" for i in range(N_LAYERS)), f"blocks.{N_LAYERS - 1}.hook_resid_post")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "its", "dog", "ran", "over", "many", "hills", "then", "home"]


def documents(n: int, n_words: int = 60) -> list[str]:
    rng = random.Random(n)
    return [" ".join(rng.choices(WORDS, k=n_words)) for _ in range(n)]


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def model_files(folder: Path) -> dict[str, bytes]:
    """GPT-2's architecture and kind of tokenizer; each token's residual has a mean that dwarfs the rest."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(documents(200), trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"]))
    end = "<|endoftext|>"
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)
    config = transformers.GPT2Config(
        vocab_size=len(fast),
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=2,
        n_positions=N_CONTEXT,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.bos_token_id,
    )
    model = transformers.GPT2LMHeadModel(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    model.transformer.wte.weight.data += 3 * torch.randn(len(fast), 1)  # a mean that centring takes away
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return files_in(folder)


def sae_files(*, d_in: int = D_MODEL) -> dict[str, bytes]:
    """Thirteen SAEs in the release's own old layout, exact on residuals without their mean and on no others."""
    centred = torch.eye(d_in) - 1 / d_in
    weights = {
        "W_enc": torch.cat([centred, -centred], 1).contiguous(),
        "W_dec": torch.cat([centred, -centred], 0).contiguous(),
        "b_enc": torch.zeros(2 * d_in),
        "b_dec": torch.zeros(d_in),
    }
    files = {"README.md": b"# SAEs\n"}
    for hook in HOOKS:
        cfg = {
            "model_name": "gpt2-small",
            "hook_point": hook,
            "hook_point_layer": int(hook.split(".")[1]),
            "hook_point_head_index": None,
            "dataset_path": "Skylion007/openwebtext",
            "is_dataset_tokenized": False,
            "context_size": 32,
            "d_in": d_in,
            "d_sae": 2 * d_in,
            "dtype": "torch.float32",
            "device": "cpu",
            "architecture": "standard",
        }
        files[f"{hook}/cfg.json"] = json.dumps(cfg).encode()
        files[f"{hook}/sae_weights.safetensors"] = save(weights)
    return files


def parquet(**columns: list[object]) -> bytes:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    sink = io.BytesIO()
    write_table(pa.table(columns), sink)
    return sink.getvalue()


def queries(n: int) -> bytes:
    """Rows as cam-cst/cbt has them, as parquet."""
    rng = random.Random(n)
    rows = []
    for _ in range(n):
        options = rng.sample(WORDS, 10)
        sentences = [" ".join([*rng.choices(WORDS, k=3), "."]) for _ in range(20)]
        rows.append((sentences, "the XXXXX ran .", options[0], options))
    columns = zip(*rows, strict=True)
    return parquet(**dict(zip(("sentences", "question", "answer", "options"), map(list, columns), strict=True)))


def choices() -> dict[str, bytes]:
    """The repository cam-cst/cbt, with two of its configurations."""
    files = {f"{config}/test-00000-of-00001.parquet": queries(n) for config, n in (("CN", 30), ("NE", 20))}
    card = "---\nconfigs:\n"
    for config in ("CN", "NE"):
        card += f"- config_name: {config}\n  data_files:\n  - split: test\n    path: {config}/test-*\n"
    return {"README.md": f"{card}---\n".encode(), **files}


def stock(hub, folder: Path) -> None:
    """Put the model, the release and its default corpora on *hub*."""
    hub.model("gpt2", model_files(folder))
    hub.model(SAE_REPO, sae_files())
    text = hub.dataset("Skylion007/openwebtext", {"README.md": b"# a loading script was here\n"})
    text.commit({"plain_text/train/0000.parquet": parquet(text=documents(80))}, branch="refs/convert/parquet")
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: data/test-*\n---\n"
    passages = parquet(text=documents(40, 20))
    hub.dataset("EleutherAI/lambada_openai", {"README.md": card.encode(), "data/test-00000-of-00001.parquet": passages})
    hub.dataset("cam-cst/cbt", choices())
