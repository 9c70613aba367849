"""Models in TransformerLens's own files: pinned with their tokenizer, judged, and their pickle never run."""

import io
import json
import os

import numpy as np
import pytest
import stand_in
import torch
import transformers
from builders import cells, write_sae
from hub_server import LoopbackHub, here
from huggingface_hub import constants
from judged import judge
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from sae_checks import checks, errors
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.run.settle import settle

# made here, to compare
pytestmark = pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")

HOOK = "blocks.0.hook_resid_post"
TOKENIZER = "NeelNanda/gpt-neox-tokenizer-digits"
D_MODEL, N_CONTEXT = 16, 32
BLOCKS = {"d_model": D_MODEL, "d_head": 8, "n_heads": 2, "n_ctx": N_CONTEXT, "d_mlp": 32, "attn_only": False}
NAMES = {
    "gelu-1l": ("NeelNanda/GELU_1L512W_C4_Code", {"n_layers": 1, "act_fn": "gelu", "normalization": "LN"}),
    "solu-2l": ("NeelNanda/SoLU_2L512W_C4_Code", {"n_layers": 2, "act_fn": "solu_ln", "normalization": "LNPre"}),
    "attn-only-2l": (
        "NeelNanda/Attn_Only_2L512W_C4_Code",
        {"n_layers": 2, "act_fn": "relu", "normalization": "LN", "attn_only": True, "d_mlp": -1},
    ),
    "solu-1l-pile": ("NeelNanda/SoLU_1L_v9_old", {"n_layers": 1, "act_fn": "solu_ln", "normalization_type": "LN"}),
}
every_name = pytest.mark.parametrize("name", NAMES)


def tokenizer_files(folder):
    """Whole words and single digits, without a model's config.json; they name a class whose own rules are others."""
    words = Tokenizer(models.WordLevel(unk_token="<|UNK|>"))
    single = pre_tokenizers.Digits(individual_digits=True)
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), single])
    special = ["<|BOS|>", "<|EOS|>", "<|UNK|>"]
    words.train_from_iterator([*stand_in.documents(50), "1 2 3"], trainers.WordLevelTrainer(special_tokens=special))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=special[0], eos_token=special[1], unk_token=special[2]
    ).save_pretrained(folder)
    files = stand_in.files_in(folder)
    named = json.loads(files["tokenizer_config.json"]) | {"tokenizer_class": "GPTNeoXTokenizer"}
    return files | {"tokenizer_config.json": json.dumps(named).encode()}


def config_of(name, d_vocab):
    return BLOCKS | {"d_vocab": d_vocab, "tokenizer_name": TOKENIZER, **NAMES[name][1]}


def made(name, d_vocab):
    """The model itself, with random weights large enough that everything matters."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = config_of(name, d_vocab)
    del config["tokenizer_name"]
    normalization = config.pop("normalization", None) or config.pop("normalization_type")
    torch.manual_seed(0)
    model = HookedTransformer(HookedTransformerConfig(**config, normalization_type=normalization, device="cpu"))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def pickled(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def as_saved(name, model):
    """Its state dict; that of the old models with their old names and their matrices the other way round."""
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    if not name.endswith("pile"):
        return weights
    turned = {key: value.transpose(-2, -1) if "W_" in key else value for key, value in weights.items()}
    return {key.replace("ln_final", "norm").replace("ln", "norm"): value for key, value in turned.items()}


def repository(name, model, **other):
    config = config_of(name, model.cfg.d_vocab) | other
    return {
        "README.md": b"",
        "config.json": json.dumps(config).encode(),
        "model_final.pth": pickled(as_saved(name, model)),
        "checkpoints/model_000100.pth": b"of no use",
    }


@pytest.fixture(scope="module")
def made_models(tmp_path_factory):
    """By TransformerLens's short name; and the tokenizer's files under None."""
    tokenizer = tokenizer_files(tmp_path_factory.mktemp("tokenizer"))
    d_vocab = len(json.loads(tokenizer["tokenizer.json"])["model"]["vocab"])
    return {None: tokenizer, **{name: made(name, d_vocab) for name in NAMES}}


@pytest.fixture
def hub(made_models, tmp_path):
    """A Hub on the loopback with all of them under their real names, an empty cache, nothing else in reach."""
    with LoopbackHub() as served, here(served, tmp_path / "cache"):
        served.model(TOKENIZER, made_models[None])
        for name, (repo_id, _) in NAMES.items():
            served.model(repo_id, repository(name, made_models[name]))
        yield served


@pytest.fixture
def asked(tmp_path):
    """Settles a run on an exact SAE and one that gives zeros, of the model called *name*."""

    def ask(name, *, hook=HOOK, **options):
        eye, zeros = np.eye(D_MODEL, dtype=np.float32), np.zeros(2 * D_MODEL, np.float32)
        both = np.concatenate([eye, -eye])
        for sae_id, decoder in (("exact", both), ("zero", 0 * both)):
            tensors = {"W_enc": both.T.copy(), "W_dec": decoder, "b_enc": zeros, "b_dec": zeros[:D_MODEL]}
            metadata = {"model_name": name, "hook_name": hook, "model_from_pretrained_kwargs": {}}
            folder = tmp_path / "saes" / sae_id
            write_sae(folder, tensors=tensors, metadata=metadata, d_in=D_MODEL, d_sae=2 * D_MODEL)
        text = tmp_path / "text.txt"
        text.write_text("\n\n".join(stand_in.documents(40)))
        wanted = {"allow_pickle": True, "n_sequences": 32, "device": "cpu", "corpus": str(text), **options}
        return settle(Options(release=str(tmp_path / "saes"), **wanted))

    return ask


def measured(run, sae_id="exact"):
    return LocalExecutor(run.plan).measure("text", sae_id, run.plan.release.sae_ids)


@every_name
def test_it_is_judged_as_hooked_transformer_computes_it(hub, asked, made_models, name):
    """Green and red as they should be; each clean and spliced loss is that of the model which wrote the files."""
    run = asked(name)
    executor, sae_ids = LocalExecutor(run.plan), run.plan.release.sae_ids
    assert judge(executor, run, "exact", checks.CE_LOSS, cells(sae_ids, checks.CE_LOSS)).outcome == "passed"
    for sae_id, outcome in (("exact", "passed"), ("zero", "failed")):
        assert judge(executor, run, sae_id, checks.SPARSITY, cells(sae_ids, checks.SPARSITY)).outcome == outcome
    (corpus,) = executor._corpora.values()
    losses = executor.measure("text", "zero", sae_ids).losses
    sequences, spans = corpus.sequences, (losses.within, losses.beyond)
    clean, spliced = sum(s.ce_clean_nats for s in spans), sum(s.ce_spliced_nats for s in spans)
    assert (abs(spliced - clean) > 0.1).any()
    for i, tokens in enumerate(torch.from_numpy(sequences.tokens)):
        kept = torch.from_numpy(~sequences.replaced[i])[:, None]
        for got, hooks in ((clean, []), (spliced, [(HOOK, lambda x, kept=kept, **_: x * kept)])):
            with torch.no_grad():
                logits = made_models[name].run_with_hooks(tokens[None], fwd_hooks=hooks)[0].double()
            ce = -torch.log_softmax(logits[:-1], -1).gather(-1, tokens[1:, None])[:, 0].numpy()
            assert got[i] == pytest.approx(ce[sequences.scored[i, :-1]].sum(), rel=1e-5)


def test_model_and_tokenizer_are_pinned_and_in_the_record(hub, asked, monkeypatch):
    """Both commits and the pickle's hash; only what is needed is fetched, by commit, and offline again as cached."""
    run = asked("gelu-1l")
    first = measured(run)
    repo_id, _ = NAMES["gelu-1l"]
    repo, tokenizer = hub.repos["model", repo_id], hub.repos["model", TOKENIZER]
    facts = first.provenance.model
    assert facts.source == f"{repo_id}@{repo.sha}, tokenizer {TOKENIZER}@{tokenizer.sha}"
    assert (facts.backend, facts.architecture) == ("transformer_lens", "HookedTransformer")
    (weights,) = facts.weights
    assert (weights.name, weights.sha256) == (
        "model_final.pth",
        repo.commits[repo.sha]["model_final.pth"].sha256,
    )
    fetched = {path for _, path in hub.requests if "/resolve/" in path}
    assert not [path for path in fetched if "/main/" in path or "checkpoints" in path or "README" in path]
    assert hub.unserved == []
    for moved in (repo, tokenizer):
        moved.commit({"config.json": b"{}"})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub.unreachable():
        again = measured(asked("gelu-1l"))
    assert again.provenance.model == facts
    assert np.array_equal(again.losses.within.ce_clean_nats, first.losses.within.ce_clean_nats)


def test_the_tokenizer_is_the_one_that_was_written(hub, asked, made_models):
    """Whatever class its configuration names, text becomes the tokens that tokenizer.json itself makes of it."""
    run = asked("gelu-1l")
    executor = LocalExecutor(run.plan)
    tokenizer = executor._saes.get("exact").model.tokenizer
    text = "the cat sat 123 over"
    expected = Tokenizer.from_str(made_models[None]["tokenizer.json"].decode()).encode(text).ids
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected
    assert (len(expected), tokenizer.bos_token_id, len(tokenizer)) == (7, 0, made_models["gelu-1l"].cfg.d_vocab)


def test_the_pickle_must_be_asked_for(hub, asked):
    """Refused by name with its option, before the pickle is fetched."""
    with pytest.raises(errors.UsageError, match="--sae-allow-pickle"):
        asked("gelu-1l", allow_pickle=False)
    assert not [path for _, path in hub.requests if path.endswith(".pth")]


def test_a_stranger_with_such_files_is_refused(hub, asked, made_models):
    """Only TransformerLens's own names are read so: anyone else's final.pth is just no safetensors."""
    hub.model("somebody/GELU_1L512W_C4_Code", repository("gelu-1l", made_models["gelu-1l"]))
    with pytest.raises(errors.UsageError, match=r"no \.safetensors file"):
        asked("somebody/GELU_1L512W_C4_Code")


class Hostile:
    """Unpickled, it leaves a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_hostile_pickle_is_never_run(hub, asked, made_models, tmp_path, monkeypatch):
    """Also where pickles are allowed, and whatever the environment says of torch's default."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    harm = tmp_path / "harm"
    hostile = pickled({"embed.W_E": Hostile(harm)})
    files = repository("gelu-1l", made_models["gelu-1l"]) | {"model_final.pth": hostile}
    hub.repos["model", NAMES["gelu-1l"][0]].commit(files)
    with pytest.raises(errors.MeasuringError, match="cannot be loaded"):
        measured(asked("gelu-1l"))
    assert not harm.exists()
    torch.load(io.BytesIO(hostile), weights_only=False)
    assert harm.exists()  # it would have been seen


def test_a_folder_called_like_the_model_is_not_read_in_its_place(hub, asked, tmp_path, monkeypatch):
    """TransformerLens prefers a folder of the official name; here the pinned files count."""
    (tmp_path / "here" / NAMES["gelu-1l"][0]).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert measured(asked("gelu-1l")).losses.within.n_tokens.sum() > 0


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"tokenizer_name": None}, "names no tokenizer"),
        ({"tokenizer_name": "../tokenizer"}, "names no tokenizer"),
        ({"d_vocab": 5}, "cannot be loaded"),
        ({"d_mlp": 40}, "cannot be loaded"),
        ({"n_layers": 2}, "lack"),
        ({"shortformer_pos": True}, "resumed before its first block"),
        ({"act_fn": "unknown"}, "cannot be loaded"),
    ],
)
def test_what_does_not_fit_together_is_an_error(hub, asked, made_models, broken, message):
    """A model of half its weights, of another shape, without a tokenizer or that cannot be resumed is not measured."""
    files = repository("gelu-1l", made_models["gelu-1l"], **broken)
    hub.repos["model", NAMES["gelu-1l"][0]].commit(files)
    with pytest.raises((errors.UsageError, errors.MeasuringError), match=message):
        measured(asked("gelu-1l"))


def test_a_lacking_matrix_or_a_larger_tokenizer_is_an_error(hub, asked, made_models):
    """TransformerLens fills the first with what the memory held; the last ids of the second have no embedding."""
    model, repo = made_models["gelu-1l"], hub.repos["model", NAMES["gelu-1l"][0]]
    weights = as_saved("gelu-1l", model)
    del weights["unembed.W_U"]
    repo.commit(repository("gelu-1l", model) | {"model_final.pth": pickled(weights)})
    with pytest.raises(errors.MeasuringError, match=r"lack 1 matrices, unembed\.W_U"):
        measured(asked("gelu-1l"))
    small = made("gelu-1l", model.cfg.d_vocab - 1)
    repo.commit(repository("gelu-1l", small))
    with pytest.raises(errors.MeasuringError, match="its tokenizer has"):
        measured(asked("gelu-1l"))


@pytest.mark.parametrize("hook", ["blocks.0.hook_mlp_out", "blocks.0.mlp.hook_in", "blocks.0.hook_mlp_in"])
def test_a_model_of_attention_alone_has_no_hooks_of_an_mlp(hub, asked, hook):
    """They are an error of the SAE by name, not a splice that does nothing."""
    with pytest.raises(errors.HookNotHereError, match="no such hook"):
        measured(asked("attn-only-2l", hook=hook))
