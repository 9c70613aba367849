"""The numbers of the demo agree with independent computations on the same tokens."""

import json
import math

import numpy as np
import pytest
import torch
from builders import with_weights
from peers import lm_eval_lambada

from sae_checks.corpora import cbt, files, lambada, text
from sae_checks.corpora.sequences import Convention
from sae_checks.judging import answer_readings, corpus_readings, position_readings
from sae_checks.judging.estimates import Estimate
from sae_checks.measuring import corpus_pass
from sae_checks.measuring.choices import ChoiceSums
from sae_checks.model import hugging_face
from sae_checks.release import release

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own warnings

DEMO = release.resolve("demo")
HOOKS = [described.hook for described in DEMO.saes]


@pytest.fixture(scope="module")
def model():
    return hugging_face.load(DEMO.model, dtype="float32", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def saes():
    return [with_weights(described) for described in DEMO.saes]


def sequences(model, n_context, n=24):
    convention = Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=n_context)
    bos = model.tokenizer.bos_token_id
    documents = files.read_documents(DEMO.corpus)
    return text.tokenise(documents, model.tokenizer, convention, bos=bos, max_rows=n, seed=1)


def readings(model, saes, n_context):
    """By hook and measure, on sequences of *n_context* tokens."""
    losses = corpus_pass.measure_text(
        model, saes, sequences(model, n_context), n_batch_tokens=2048, progress=lambda *_: None
    )
    return {
        s.hook: {
            r.measure: r.value
            for r in (*corpus_readings.ce_loss(x), *corpus_readings.sparsity(x))
            if isinstance(r, Estimate)
        }
        for s, x in zip(saes, losses, strict=True)
    }


class OneBatch:
    """What SAE Lens's evaluator asks of an ActivationsStore, with our tokens in it."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.store_batch_size_prompts, self.context_size = tokens.shape

    def get_batch_tokens(self, _):
        return self.tokens

    def reset_input_dataset(self):
        """Nothing to start again."""


def hooked_transformer(model, *, center):
    """TransformerLens's HookedTransformer with the demo's weights, its residual stream centred if *center*."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = model._model.config
    hooked_config = HookedTransformerConfig(
        n_layers=config.n_layer,
        d_model=config.n_embd,
        n_ctx=config.n_positions,
        d_head=config.n_embd // config.n_head,
        n_heads=config.n_head,
        d_vocab=config.vocab_size,
        act_fn=config.activation_function,
        normalization_type="LN",
        eps=config.layer_norm_epsilon,
        device="cpu",
    )
    hooked = HookedTransformer(hooked_config)
    weights = {name: value.clone() for name, value in convert_gpt2_weights(model._model, hooked_config).items()}
    hooked.load_and_process_state_dict(
        weights,  # copies: centring works in place
        fold_ln=False,
        center_writing_weights=center,
        center_unembed=False,
        fold_value_biases=False,
    )
    hooked.tokenizer = model.tokenizer
    return hooked


@pytest.mark.parametrize("hook", HOOKS)
def test_centring_agrees_with_transformer_lens(model, hook):
    """What a centred SAE is given is HookedTransformer's own residual with center_writing_weights, and no other."""
    tokens = torch.from_numpy(sequences(model, 64, n=4).tokens)
    with torch.no_grad():
        _, cache = hooked_transformer(model, center=True).run_with_cache(tokens, prepend_bos=False)
    x = model.clean(tokens, [hook]).activation(hook)
    assert torch.allclose(x - x.mean(-1, keepdim=True), cache[hook], atol=1e-3)
    assert not torch.allclose(x, cache[hook], atol=1e-2)


@pytest.fixture(scope="module")
def sae_lens_metrics(model):
    """SAE Lens's own evaluator over a HookedTransformer with the demo's weights, on sequences of 64 tokens."""
    from sae_lens import SAE
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    hooked = hooked_transformer(model, center=False)
    wanted = EvalConfig(
        n_eval_reconstruction_batches=1,
        n_eval_sparsity_variance_batches=1,
        compute_kl=True,
        compute_ce_loss=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
    )
    store = OneBatch(torch.from_numpy(sequences(model, 64).tokens))
    found = {}
    for described in DEMO.saes:
        loaded = SAE.load_from_disk(described.weights.parent)
        metrics, _ = run_evals(loaded, store, hooked, ActivationScaler(), wanted)
        found[described.hook] = {k: v for group in metrics.values() for k, v in group.items()}
    return found


@pytest.mark.parametrize("hook", HOOKS)
def test_agrees_with_sae_lens(model, saes, sae_lens_metrics, hook):
    """CE clean and spliced, KL, L0 and explained variance are SAE Lens's to 1e-4, relative."""
    theirs, ours = sae_lens_metrics[hook], readings(model, saes, 64)[hook]
    # SAE Lens's KL also counts the last position, which has no next token: ours does with one token more
    kl = readings(model, saes, 65)[hook]["kl"]
    assert ours["ce_clean"] == pytest.approx(theirs["ce_loss_without_sae"], rel=1e-4)
    assert ours["ce_spliced"] == pytest.approx(theirs["ce_loss_with_sae"], rel=1e-4)
    assert kl == pytest.approx(theirs["kl_div_with_sae"], rel=1e-4)
    assert ours["l0"] == pytest.approx(theirs["l0"], rel=1e-4)
    assert ours["explained_variance"] == pytest.approx(theirs["explained_variance"], rel=1e-4)


@pytest.mark.parametrize("hook", HOOKS)
def test_agrees_with_plain_transformers(model, saes, hook):
    """CE clean and spliced within the training context are those of whole passes with one PyTorch hook."""
    import tiny

    made = sequences(model, 128)
    ids = torch.from_numpy(made.tokens)
    ready = next(s for s in saes if s.hook == hook)

    def change(x):
        return torch.cat([x[:, :1], ready.reconstruct(x).output[:, 1:]], 1)

    (losses,) = corpus_pass.measure_text(model, [ready], made, n_batch_tokens=2048, progress=lambda *_: None)
    ours = {r.measure: r.value for r in corpus_readings.ce_loss(losses)}
    ce = {}
    for name, how in (("ce_clean", ()), ("ce_spliced", (hook, change))):
        log_p = torch.log_softmax(tiny.plain_logits(model._model, ids, *how), -1)
        ce[name] = -log_p[:, 1:-1].gather(-1, ids[:, 2:, None])[..., 0].double()  # (sequences, positions from 1 on)
        assert ours[name] == pytest.approx(float(ce[name][:, :63].mean()), rel=1e-5)
    increase = (ce["ce_spliced"] - ce["ce_clean"]).numpy()
    drawn = {curve.measure: curve for curve in position_readings.curves(losses)}
    assert drawn["ce_increase"].value == pytest.approx(increase.mean(0), abs=1e-5)
    x = model.clean(ids, [hook]).activation(hook)[:, 1:]
    error, spread = (x - ready.reconstruct(x).output).square().sum((0, 2)), (x - x.mean(0)).square().sum((0, 2))
    assert drawn["explained_variance"].value == pytest.approx((1 - error / spread).double().numpy(), rel=1e-4)
    running = (increase.cumsum(1) / np.arange(1, increase.shape[1] + 1)).mean(0)
    longest = next((p for p in range(63, len(running)) if running[p - 1] > 0.1), len(running) + 1)
    usable = {r.measure: r.value for r in position_readings.usable_context(losses, 0.1)}
    assert usable["usable_context_tokens"] == longest


def spliced_by_a_hook(model, ready):
    """Puts *ready* into the raw model by a PyTorch hook at every position; returns what takes it out again."""
    layer, blocks = int(ready.hook.split(".")[1]), model._model.transformer.h
    if ready.hook.endswith("pre"):
        return blocks[layer].register_forward_pre_hook(lambda _, args: (ready.reconstruct(args[0]).output, *args[1:]))
    return blocks[layer].register_forward_hook(lambda _, __, output: ready.reconstruct(output).output)


@pytest.mark.parametrize("hook", [HOOKS[0], HOOKS[-1]])
def test_lambada_in_depth_agrees_with_plain_transformers(model, saes, hook):
    """Probability and rank of the word and the drop by length, from whole passes over one passage at a time."""
    import tiny

    ready = next(s for s in saes if s.hook == hook)
    convention = Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=256)
    passages = files.read_passages(DEMO.lambada)
    bos = model.tokenizer.bos_token_id
    items = lambada.tokenise(passages, model.tokenizer, convention, bos=bos, max_rows=100, seed=0)
    (losses,) = corpus_pass.measure_items(model, [ready], items, n_batch_tokens=1024, progress=lambda *_: None)
    ours = {
        r.measure: r.value for r in answer_readings.lambada(losses, n_training_context_tokens=64) if hasattr(r, "value")
    }

    def change(x):
        return torch.cat([x[:, :1], ready.reconstruct(x).output[:, 1:]], 1)

    rows = []
    for row, length in zip(items.rows, items.lengths, strict=True):
        words = passages[row].split(" ")
        ids = torch.tensor([[bos, *model.tokenizer(passages[row], add_special_tokens=False)["input_ids"]]])
        n_target = ids.shape[1] - 1 - len(model.tokenizer(" ".join(words[:-1]), add_special_tokens=False)["input_ids"])
        found = [length - 1 <= 64]
        for how in ((), (hook, change)):
            log_p = torch.log_softmax(tiny.plain_logits(model._model, ids, *how)[0, -1 - n_target : -1], -1)
            of_word = [float(p[t]) for p, t in zip(log_p, ids[0, -n_target:], strict=True)]
            worst = max(int((p > x).sum()) + 1 for p, x in zip(log_p, of_word, strict=True))
            found += [math.exp(sum(of_word)), worst]
        rows.append(found)
    within, p_clean, rank_clean, p_spliced, rank_spliced = np.array(rows, dtype=float).T
    assert ours["probability_clean"] == pytest.approx(p_clean.mean(), rel=1e-4)
    assert ours["probability_spliced"] == pytest.approx(p_spliced.mean(), rel=1e-4)
    assert ours["reciprocal_rank_clean"] == pytest.approx((1 / rank_clean).mean(), rel=1e-6)
    assert ours["reciprocal_rank_spliced"] == pytest.approx((1 / rank_spliced).mean(), rel=1e-6)
    drop = (rank_clean == 1).astype(float) - (rank_spliced == 1)
    for place, chosen in (("within", within == 1), ("beyond", within == 0)):
        if chosen.any():
            assert ours[f"accuracy_drop_{place}"] == pytest.approx(drop[chosen].mean(), abs=1e-9)
    assert ours["answers_lost"] == (drop > 0).mean()


@pytest.mark.parametrize("hook", [HOOKS[1], HOOKS[-1]])
def test_lambada_agrees_with_lm_evaluation_harness(model, saes, hook, tmp_path, monkeypatch):
    """Accuracy and perplexity, clean and spliced, on the same passages, without BOS as the harness runs GPT-2."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    passages = files.read_passages(DEMO.lambada)[:120]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps({"text": passage}) + "\n" for passage in passages))
    ready = next(s for s in saes if s.hook == hook)
    convention = Convention(prepend_bos=False, special_tokens_kept=True, n_context_tokens=256)
    items = lambada.tokenise(passages, model.tokenizer, convention, bos=None, max_rows=len(passages), seed=0)
    (losses,) = corpus_pass.measure_items(model, [ready], items, n_batch_tokens=1024, progress=lambda *_: None)
    ours = {r.measure: r.value for r in answer_readings.lambada(losses) if isinstance(r, Estimate)}
    accuracy, perplexity = lm_eval_lambada(model, path)
    assert ours["accuracy_clean"] == pytest.approx(accuracy, abs=1e-9)
    assert ours["perplexity_clean"] == pytest.approx(perplexity, rel=1e-4)
    handle = spliced_by_a_hook(model, ready)
    try:
        accuracy, perplexity = lm_eval_lambada(model, path)
    finally:
        handle.remove()
    assert ours["accuracy_spliced"] == pytest.approx(accuracy, abs=1e-9)
    assert ours["perplexity_spliced"] == pytest.approx(perplexity, rel=1e-4)
    assert math.isfinite(ours["perplexity_spliced"])
    assert np.isfinite(losses.spliced_logprob_nats).all()


@pytest.mark.parametrize("hook", [HOOKS[1], HOOKS[-1]])
def test_choices_agree_with_plain_transformers(model, saes, hook):
    """Row by row from the file, whole sequences one at a time, no resume: the same choices and log-probabilities."""
    import tiny

    queries = files.read_queries(DEMO.cbt)[:24]
    convention = Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=256)
    bos = model.tokenizer.bos_token_id
    made = cbt.tokenise(queries, model.tokenizer, convention, bos=bos, max_rows=len(queries), seed=0)
    ready = next(s for s in saes if s.hook == hook)
    rounds = corpus_pass.item_rounds(
        model, [ready], made, n_batch_tokens=1024, progress=lambda *_: None, ends=(len(made.rows),), sums_of=ChoiceSums
    )
    ours = next(rounds)[0].losses()

    def change(x):
        return torch.cat([x[:, :1], ready.reconstruct(x).output[:, 1:]], 1)

    rows = [json.loads(line) for line in DEMO.cbt.read_text().splitlines()]
    for how, correct, nats in (
        ((), ours.clean_correct, ours.clean_logprob_nats),
        ((hook, change), ours.spliced_correct, ours.spliced_logprob_nats),
    ):
        for index, is_correct, of_answer in zip(ours.queries, correct, nats, strict=True):
            row = rows[index]
            sums = []
            for option in row["options"]:
                passage, query = (
                    part.replace(" .", ".").replace(" ,", ",")
                    for part in (" ".join(row["sentences"]), row["question"].replace("XXXXX", option))
                )
                n_passage, ids = len(model.tokenizer.encode(passage)), model.tokenizer.encode(f"{passage} {query}")
                tokens = torch.tensor([[bos, *ids]])
                log_p = torch.log_softmax(tiny.plain_logits(model._model, tokens, *how)[0].double(), -1)
                sums.append(sum(float(log_p[i, ids[i]]) for i in range(n_passage, len(ids))))
            answer = row["options"].index(row["answer"])
            assert is_correct == (max(range(10), key=sums.__getitem__) == answer)
            assert of_answer == pytest.approx(sums[answer] - np.logaddexp.reduce(sums), abs=1e-4)
