"""Prompts whose answers are known: their form, their masks, green and red, and plain transformers' probabilities."""

import math
import string

import numpy as np
import pytest
from builders import BUDGET, item_losses, with_weights
from hypothesis import given
from hypothesis import strategies as st
from letters import BOS, LetterTokenizer, WordTokenizer

from sae_checks import checks, errors
from sae_checks.corpora import golden as corpus
from sae_checks.judging import golden_readings, thresholds, verdict
from sae_checks.judging.limits import golden_limit
from sae_checks.plan.golden_prompts import Golden, GoldenPrompt

ENTRIES = {
    "prompt": '"To be or not to"',
    "answer": '" be"',
    "probability_clean": "0.9",
    "probability_spliced": "0.8",
    "tolerance": "0.05",
    "bos": "true",
    "special_tokens": '"replace"',
    "source": '"a play"',
}
NAME = 'release."r".sae."a*".golden'


def table(name=NAME, **changes):
    """One golden prompt in TOML with *changes*; None leaves an entry out."""
    entries = {key: value for key, value in {**ENTRIES, **changes}.items() if value is not None}
    return "\n".join([f"[[{name}]]", *(f"{key} = {value}" for key, value in entries.items()), ""])


def prompt(text="To be or not to", answer=" be", clean=0.9, spliced=0.8, tolerance=0.05):
    return GoldenPrompt(
        prompt=text,
        answer=answer,
        probability_clean=clean,
        probability_spliced=spliced,
        tolerance=tolerance,
        source="a play",
    )


def golden(*prompts, bos=True, special_tokens="replace"):
    return Golden(prompts=prompts, prepend_bos=bos, special_tokens=special_tokens, where="own.toml [[x]]")


@pytest.fixture
def load(tmp_path):
    """Thresholds of the user's tables over an empty shipped file."""

    def _load(*tables, shipped=()):
        for name, of_file in (("own.toml", tables), ("shipped.toml", shipped)):
            (tmp_path / name).write_text("\n".join(["schema = 1", *of_file]), encoding="utf-8")
        return thresholds.load(tmp_path / "own.toml", shipped=tmp_path / "shipped.toml")

    return _load


def test_tables_become_prompts(load):
    """Every entry arrives, in the order of the tables, with the place where they are written."""
    found = load(table(), table(prompt='"Twice"')).golden("r", "ab")
    expected = golden(prompt(), prompt("Twice"))
    assert found.prompts == expected.prompts
    assert (found.prepend_bos, found.special_tokens) == (True, "replace")
    assert found.where == 'own.toml [[release."r".sae."a*".golden]]'


def test_most_saes_have_none(load):
    """Another release, another SAE, or a file without any: no golden prompts, and no error."""
    found = load(table())
    assert found.golden("r", "b") is found.golden("q", "a") is load().golden("r", "a") is None


def test_the_users_prompts_come_before_the_shipped_ones(load):
    """As limits do: a file that has prompts for an SAE is the only one asked."""
    shipped = [table(prompt='"shipped"'), table('release."r".sae."b".golden', prompt='"shipped"')]
    found = load(table(), shipped=shipped)
    assert [known.prompt for known in found.golden("r", "a").prompts] == ["To be or not to"]
    assert [known.prompt for known in found.golden("r", "b").prompts] == ["shipped"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(({key: None}, f"{key} is None") for key in ENTRIES),
        *(({key: '""'}, f"{key} is ''") for key in ("prompt", "answer", "source")),
        ({"answers": '" be"'}, "unknown key 'answers'"),
        ({"probability_clean": "1.2"}, "probabilities from 0 to 1"),
        ({"probability_spliced": "-0.1"}, "probabilities from 0 to 1"),
        ({"probability_clean": "nan"}, "a finite number"),
        ({"probability_clean": "true"}, "a finite number"),
        ({"tolerance": "0"}, "above 0 and below 0.5"),
        ({"tolerance": "0.5"}, "above 0 and below 0.5"),
        ({"bos": "1"}, "bos = true or false"),
        ({"special_tokens": '"drop"'}, '"keep" or "replace"'),
        ({"special_tokens": "[]"}, '"keep" or "replace"'),
    ],
)
def test_what_is_not_understood_is_refused(load, changes, said):
    """Missing, misspelt, of another type, or out of range: a usage error that names file and table."""
    with pytest.raises(errors.UsageError) as caught:
        load(table(**changes))
    for part in (said, "own.toml", 'release."r".sae."a*".golden'):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (table('release."r".golden'), "unknown key 'golden'"),
        (table("default.golden"), "unknown key 'golden'"),
        (table().replace("[[", "[").replace("]]", "]"), "not tables"),
        ('[release."r".sae."a*"]\ngolden = []', "not tables"),
        ('[release."r".sae."a*"]\ngolden = [3]', "not tables"),
        (table() + table(bos="false"), "several rules"),
        (table() + table(special_tokens='"keep"'), "several rules"),
    ],
)
def test_tables_stand_where_they_mean_something(load, text, said):
    """A golden prompt is of one kind of SAE, an array of tables, and its SAE has one rule."""
    with pytest.raises(errors.UsageError, match="own") as caught:
        load(text)
    assert said in str(caught.value)


words = st.text(string.ascii_letters, min_size=1, max_size=5)


@given(st.lists(words, min_size=1, max_size=6), words, st.booleans(), st.booleans())
def test_the_answer_alone_is_scored(prompt_words, answer, bos, keeps):
    """As many predictions as the answer has tokens, the last ones; BOS is replaced where the rule says so."""
    known = golden(prompt(" ".join(prompt_words), f" {answer}"), bos=bos, special_tokens="keep" if keeps else "replace")
    found = corpus.tokenise(known, LetterTokenizer(), bos=BOS if bos else None, n_context_tokens=99)
    n_prompt = len(" ".join(prompt_words)) + bos
    n_answer = len(answer) + 1  # with its space
    assert found.lengths.tolist() == [n_prompt + n_answer]
    assert np.flatnonzero(found.scored[0]).tolist() == list(range(n_prompt - 1, n_prompt + n_answer - 1))
    assert found.replaced[0].tolist() == [not (bos and keeps), *[True] * (n_prompt + n_answer - 1)]
    assert corpus.facts(known, found, n_context_tokens=99).n_scored_tokens == n_answer


@pytest.mark.parametrize(
    ("text", "answer", "bos", "n_context_tokens"),
    [("a b", "c", BOS, 9), ("a b", "c d", BOS, 9), ("a b ", " ", BOS, 9), ("", " a", None, 9), ("a b", " c", BOS, 3)],
)
def test_an_answer_that_cannot_be_scored_is_an_error(text, answer, bos, n_context_tokens):
    """It changes the prompt's own tokens, has none, has nothing before it, or does not fit into the context."""
    known = golden(prompt(text, answer))
    with pytest.raises(errors.MeasuringError, match="cannot be scored"):
        corpus.tokenise(known, WordTokenizer(), bos=bos, n_context_tokens=n_context_tokens)


def judged(*answers):
    found = tuple(
        golden_readings.Answer(known=known, clean=clean, spliced=spliced) for known, clean, spliced in answers
    )
    limit = golden_limit(golden(*(known for known, _, _ in answers)))
    return verdict.judge(golden_readings.readings(found), limit, BUDGET)


shares = st.floats(0, 1)


@given(st.lists(st.tuples(shares, shares, shares, shares), min_size=1, max_size=12), st.floats(0.001, 0.499))
def test_any_prompt_that_is_off_fails(rows, tolerance):
    """Passed where every probability is within its tolerance, failed otherwise, however few prompts there are."""
    known = [prompt(clean=c, spliced=s, tolerance=tolerance) for c, s, _, _ in rows]
    found = judged(*((p, clean, spliced) for p, (_, _, clean, spliced) in zip(known, rows, strict=True)))
    worst = max(max(abs(clean - c), abs(spliced - s)) for c, s, clean, spliced in rows) / tolerance
    assert found.outcome == ("passed" if worst <= 1 else "failed")
    assert "more sequences" not in found.reason
    assert [e.n for e in found.estimates] == [len(rows)] * 3
    assert all(e.low == e.value == e.high for e in found.estimates)
    assert found.estimates[2].value == pytest.approx(worst)


@pytest.mark.parametrize(("clean", "spliced"), [(math.nan, 0.8), (0.9, math.nan), (math.inf, 0.8)])
def test_a_probability_that_is_not_finite_fails(clean, spliced):
    """Never averaged away, never compared."""
    found = judged((prompt(), 0.9, 0.8), (prompt(), clean, spliced))
    assert (found.outcome, found.estimates) == ("failed", ())
    assert "golden prompt 1" in found.reason


def test_answers_are_probabilities_of_the_whole_answer():
    """exp of the summed log-probability, prompt by prompt."""
    losses = item_losses([True, True], [True, False], [math.log(0.5), math.log(0.25)], [math.log(0.4), math.log(0.1)])
    found = golden_readings.answers(losses, golden(prompt(), prompt("another")))
    assert [(a.clean, a.spliced) for a in found] == [
        (pytest.approx(0.5), pytest.approx(0.4)),
        (pytest.approx(0.25), pytest.approx(0.1)),
    ]


def test_an_answer_is_said_with_its_numbers_on_one_line():
    """Prompt, answer, both probabilities with what was expected, tolerance; a line break in a prompt breaks no line."""
    text = str(golden_readings.Answer(known=prompt("To be\nor not to"), clean=0.7, spliced=0.1))
    assert text == (
        "  'To be\\\\nor not to' -> ' be': clean 0.7000 (expected 0.9), spliced 0.1000 (expected 0.8), tolerance 0.05"
    )


def test_the_shipped_prompts_are_those_of_the_literature_and_the_demo():
    """The one known of gpt2-small-res-jb's layer 8, and two of the demo's third SAE, the damaged release's too."""
    found = thresholds.load()
    (known,) = found.golden("gpt2-small-res-jb", "blocks.8.hook_resid_pre").prompts
    assert (known.answer, known.probability_clean, known.probability_spliced) == (" Mary", 0.6993, 0.3878)
    assert found.golden("gpt2-small-res-jb", "blocks.7.hook_resid_pre") is None
    of_demo = found.golden("demo", "blocks.2.hook_resid_pre")
    assert of_demo == found.golden("demo-broken", "blocks.2.hook_resid_pre")
    assert len(of_demo.prompts) == 2


@pytest.fixture(scope="module")
def results():
    """The demo's third SAE, as trained and damaged, judged by the shipped prompts."""
    from judged import judge

    from sae_checks.measuring.local import LocalExecutor
    from sae_checks.plan.options import Options
    from sae_checks.run.settle import settle

    found = {}
    for release in ("demo", "demo-broken"):
        asked = settle(Options(release=release, device="cpu"))
        executor = LocalExecutor(asked.plan)
        found[release] = judge(executor, asked, "blocks.2.hook_resid_pre", checks.GOLDEN)
    return found


@pytest.mark.slow
def test_the_demo_is_green_and_its_damaged_sae_red(results):
    """The clean probability is the same in both, and the damaged SAE's answers are said with their numbers."""
    green, red = (results[release] for release in ("demo", "demo-broken"))
    assert (green.outcome, red.outcome) == ("passed", "failed"), green.reason
    assert green.reason.count("\n") == 0
    assert red.reason.count("\n") == 2
    assert "(expected 0.9981)" in red.reason
    assert green.estimates[0] == red.estimates[0]
    assert (red.provenance.corpus.kind, red.provenance.corpus.n_sequences) == ("golden", 2)


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_probabilities_agree_with_plain_transformers(keeps):
    """Answers of one and of several tokens, clean and spliced by a PyTorch hook, BOS replaced or not."""
    import tiny
    import torch

    from sae_checks.measuring import corpus_pass
    from sae_checks.model import hugging_face
    from sae_checks.release.release import resolve

    demo = resolve("demo")
    model = hugging_face.load(demo.model, dtype="float32", device=torch.device("cpu"))
    ready = with_weights(demo.saes[2])
    texts = [("Jana worked on the", " stage"), ("Anna left the new saw", " on the island. Then Felix needed")]
    known = golden(*(prompt(*text) for text in texts), special_tokens="keep" if keeps else "replace")
    items = corpus.tokenise(known, model.tokenizer, bos=model.tokenizer.bos_token_id, n_context_tokens=256)
    (losses,) = corpus_pass.measure_items(model, [ready], items, n_batch_tokens=64, progress=lambda *_: None)
    found = golden_readings.answers(losses, known)

    def change(x):
        spliced = ready.reconstruct(x).output
        return torch.cat([x[:, :keeps], spliced[:, keeps:]], 1)

    for answer, (text, continuation) in zip(found, texts, strict=True):
        start = [model.tokenizer.bos_token_id, *model.tokenizer.encode(text, add_special_tokens=False)]
        behind = model.tokenizer.encode(continuation, add_special_tokens=False)
        ids = torch.tensor([[*start, *behind]])
        for got, how in ((answer.clean, ()), (answer.spliced, (ready.hook, change))):
            p = tiny.plain_logits(model._model, ids, *how)[0].double().softmax(-1)
            each = [float(p[len(start) - 1 + i, token]) for i, token in enumerate(behind)]
            assert got == pytest.approx(math.prod(each), rel=1e-4)
            assert 0 < got < 1
