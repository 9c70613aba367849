"""Corpora of ready-made token ids: whose tokenizer made them, where documents end, and what is refused by name."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_checks import errors
from sae_checks.corpora import files, pretokenised, text
from sae_checks.corpora.pretokenised import Tokenisation
from sae_checks.corpora.rows import Pretokenised, identity
from sae_checks.corpora.sequences import Convention
from sae_checks.plan.corpus_source import CorpusSource

BOS, EOS = 0, 1
NOTHING_STATED = Tokenisation(tokenizer_name=None, is_packed_unmarked=False)


class Letters:
    """One token per letter; 0 is BOS, 1 is EOS."""

    bos_token_id, eos_token_id = BOS, EOS
    all_special_ids = (BOS, EOS)

    def __len__(self):
        return 28

    def __call__(self, text, **_):
        return {"input_ids": [2 + ord(letter) - ord("a") for letter in text]}

    def decode(self, ids, **_):
        return "".join(chr(ord("a") + i - 2) for i in ids)


def row(*ids, text=None):
    return Pretokenised(ids=ids, text=text)


def check(documents, tokenizer, *, stated=NOTHING_STATED, model=None):
    pretokenised.check(documents, tokenizer, stated, flag="--sae-corpus", source="rows.jsonl", model=model)


def unpacked(*rows):
    return [found.ids for found in pretokenised.unpacked(rows, Letters())]


def parquet(path, metadata=None, **columns):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


@pytest.fixture(scope="module")
def bpe():
    """Two byte-level BPE tokenizers of one size, each trained on half of the words."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 9))) for _ in range(600)]
    found = []
    for own in (words[:300], words[300:]):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<|endoftext|>"], show_progress=False)
        tokenizer.train_from_iterator([" ".join(rng.choices(own, k=40)) for _ in range(400)], trainer)
        end = "<|endoftext|>"
        found.append(transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end))
    texts = [" ".join(rng.choices(words[:300], k=40)) for _ in range(30)]
    return (*found, texts)


def test_parquet_and_jsonl_give_the_same_documents(tmp_path):
    """Text, ids under either name, and both together are read alike from either form."""
    rows = [{"text": "ab"}, {"input_ids": [2, 3]}, {"tokens": [4]}, {"input_ids": [2, 3], "text": "ab"}]
    expected = ("ab", row(2, 3), row(4), row(2, 3, text="ab"))
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(r) + "\n" for r in rows))
    columns = {key: [r.get(key) for r in rows] for key in ("text", "input_ids", "tokens")}
    assert (
        files.read_documents(lines) == files.read_documents(parquet(tmp_path / "rows.parquet", **columns)) == expected
    )


def test_parquet_passages(tmp_path):
    """Lambada passages come from a parquet file, too, and a bad one is named by its row."""
    path = tmp_path / "l.parquet"
    assert files.read_passages(parquet(path, text=["a word", "two words"])) == ("a word", "two words")
    with pytest.raises(errors.UsageError, match="row 2 has no last word"):
        files.read_passages(parquet(path, text=["a word", "word"]))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"body": ["a"]}, "row 1 is not"),
        ({"text": [None]}, "row 1 is not"),
        ({"text": [3]}, "row 1 is not"),
        ({"input_ids": [[1, 2], [3, -4]]}, "row 2 has an input_ids"),
        ({"input_ids": [[1.5]]}, "row 1 has an input_ids"),
        ({"input_ids": [7]}, "row 1 has an input_ids"),
        ({"input_ids": [[2**40]]}, "row 1 has an input_ids"),
        ({"input_ids": [[]]}, "there is no text"),
        ({"text": [" "]}, "there is no text"),
    ],
)
def test_a_malformed_parquet_file_is_refused(tmp_path, columns, words):
    """A UsageError that names the flag, the file and the row."""
    with pytest.raises(errors.UsageError, match=r"^--sae-corpus .*c\.parquet") as caught:
        files.read_documents(parquet(tmp_path / "c.parquet", **columns))
    assert words in str(caught.value)


def test_what_is_no_parquet_is_refused(tmp_path):
    """A damaged file, a folder and nothing at all cannot be read, and that is said."""
    whole = parquet(tmp_path / "whole.parquet", text=["a"] * 50).read_bytes()
    (tmp_path / "damaged.parquet").write_bytes(whole[:-20])
    (tmp_path / "other.parquet").write_text("no parquet")
    (tmp_path / "folder.parquet").mkdir()
    for name in ("damaged", "other", "folder", "none"):
        with pytest.raises(errors.UsageError, match="cannot be read"):
            files.read_documents(tmp_path / f"{name}.parquet")


@pytest.mark.parametrize("ids", ['"abc"', "[1, true]", "[1, -1]", "3", "{}"])
def test_what_is_no_list_of_ids_is_refused(tmp_path, ids):
    """Ids are whole numbers, not words, truths or one number."""
    (tmp_path / "c.jsonl").write_text(f'{{"input_ids": {ids}}}')
    with pytest.raises(errors.UsageError, match="line 1 has an input_ids that is no list of token ids"):
        files.read_documents(tmp_path / "c.jsonl")


def test_rows_of_one_document_lose_their_own_boundaries():
    """A BOS before and an EOS behind are taken away, whatever the row, and every row is used."""
    assert unpacked(row(2, 3), row(BOS, 4, 5), row(6, 7, EOS), row(BOS, 8, EOS), row()) == [
        (2, 3),
        (4, 5),
        (6, 7),
        (8,),
        (),
    ]


def test_packed_rows_give_one_sequence_per_document():
    """A row is cut at its first boundary, and used only if another document has begun since the last one used."""
    rows = [row(BOS, 2, 3, 4), row(BOS, 5, 6, 7), row(BOS, 8, EOS, 9), row(BOS, 10, 11, 12), row(13, EOS, EOS, 14)]
    # rows 1 to 3 begin in one document; the fourth begins in the next, and so does the fifth
    assert unpacked(*rows) == [(2, 3, 4), (), (), (10, 11, 12), ()]
    assert unpacked(row(2, EOS, 3), row(4, EOS), row(5, 6)) == [(2,), (4,), (5, 6)]


documents_of_letters = st.lists(st.lists(st.integers(2, 27), min_size=1, max_size=9), min_size=1, max_size=8)


@given(documents_of_letters, st.integers(2, 7), st.booleans())
def test_packing_is_undone_to_at_most_one_piece_per_document(documents, n_row, with_bos):
    """Documents with EOS between, cut into rows: what is kept holds no boundary and no document twice."""
    numbered = [(number, token) for number, ids in enumerate(documents) for token in [*ids, EOS]]
    cut = [numbered[i : i + n_row] for i in range(0, len(numbered), n_row)]
    rows = [row(*([BOS] if with_bos else []), *(token for _, token in part)) for part in cut]
    kept = unpacked(*rows)
    whole = {tuple(ids) for ids in documents}
    of_documents = []
    for part, ids in zip(cut, kept, strict=True):
        assert not {BOS, EOS} & {*ids}
        if ids:
            first = next(i for i, (_, token) in enumerate(part) if token != EOS)
            assert ids == tuple(token for _, token in part[first : first + len(ids)])
            of_documents.append(part[first][0])
    is_packed = any(sum(1 for _ in group) > 1 for group in ({n for n, t in part if t != EOS} for part in cut))
    if is_packed:
        assert len({*of_documents}) == len(of_documents)
    assert all(len(ids) <= max(map(len, whole)) for ids in kept)


@given(documents_of_letters, st.integers(2, 6))
def test_ids_give_the_sequences_of_their_text(documents, n_context):
    """Text and its ids, with or without a BOS of their own, are the same tokens under exactly one BOS."""
    texts = [Letters().decode(ids) for ids in documents]
    convention = Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=n_context)
    given_ids = pretokenised.unpacked(
        [row(BOS, *ids, text=t) for ids, t in zip(documents, texts, strict=True)], Letters()
    )
    found, same = (
        text.tokenise(rows, Letters(), convention, bos=BOS, max_rows=99, seed=0) for rows in (given_ids, texts)
    )
    assert {tuple(t) for t in found.tokens.tolist()} == {tuple(t) for t in same.tokens.tolist()}
    assert (found.tokens[:, :1] == BOS).all()
    assert (found.tokens[:, 1:2] != BOS).all()


def test_ids_beyond_the_vocabulary_are_refused():
    """The smallest sign of another tokenizer."""
    check([row(2, 27)], Letters())
    with pytest.raises(errors.MeasuringError, match="row 1 has the id 28, the vocabulary has 28"):
        check([row(2, 27), row(2, 28)], Letters())


def test_ids_must_be_those_of_their_text():
    """Rows may be cut short; but they must begin as their text does."""
    check([row(BOS, 2, 3, text="abc"), row(2, 3, 4, EOS, text="abc")], Letters())
    with pytest.raises(errors.MeasuringError, match=r"row 0: its text begins with the ids \[2, 3, 4\]"):
        check([row(BOS, 2, 4, text="abc")], Letters())


def test_ids_of_another_tokenizer_do_not_come_back(bpe):
    """Without a text and a name, ids of another tokenizer of the same size are found by decoding and encoding them."""
    own, other, texts = bpe
    ids = [row(own.bos_token_id, *own(t, add_special_tokens=False)["input_ids"][3:90]) for t in texts]
    check(ids, own)
    with pytest.raises(
        errors.MeasuringError, match=r"decoded and encoded again, \d+ of \d+ ids in 30 rows do not come back"
    ):
        check(ids, other)


def test_the_stated_tokenizer_must_be_the_models():
    """By name, whatever the organisation and TransformerLens's alias; a folder's name is not compared."""
    for stated, model in (("gpt2", "openai-community/gpt2"), ("gpt2-small", "gpt2"), ("org/x", "Other/X"), ("a", None)):
        check([row(2, 3)], Letters(), stated=Tokenisation(tokenizer_name=stated, is_packed_unmarked=False), model=model)
    with pytest.raises(errors.MeasuringError, match="made with the tokenizer gpt2, the model is org/pythia"):
        check(
            [row(2, 3)],
            Letters(),
            stated=Tokenisation(tokenizer_name="gpt2", is_packed_unmarked=False),
            model="org/pythia",
        )


def test_what_a_dataset_says_is_read(tmp_path):
    """From SAE Lens's own file beside the data, or from the metadata of a parquet file; nonsense says nothing."""
    place = CorpusSource(path=parquet(tmp_path / "c.parquet", {"tokenizer_name": "gpt2"}, input_ids=[[2]]))
    assert pretokenised.stated_tokenisation(place) == Tokenisation(tokenizer_name="gpt2", is_packed_unmarked=False)
    beside = tmp_path / "sae_lens.json"
    for written in ("no json", "[]", '{"tokenizer_name": 3}'):
        beside.write_text(written)
        assert pretokenised.stated_tokenisation(CorpusSource(path=tmp_path / "c.jsonl")) == NOTHING_STATED
    told = {"tokenizer_name": "org/m", "disable_concat_sequences": False, "sequence_separator_token": None}
    beside.write_text(json.dumps(told))
    stated = pretokenised.stated_tokenisation(CorpusSource(path=tmp_path / "c.jsonl"))
    assert stated == Tokenisation(tokenizer_name="org/m", is_packed_unmarked=True)
    with pytest.raises(errors.MeasuringError, match="hold several documents each"):
        check([row(2, 3)], Letters(), stated=stated)
    for key in ("sequence_separator_token", "begin_sequence_token"):
        beside.write_text(json.dumps(told | {key: "bos"}))
        assert not pretokenised.stated_tokenisation(CorpusSource(path=tmp_path / "c.jsonl")).is_packed_unmarked


def test_documents_are_told_apart_by_their_ids():
    """The seeded order depends on the ids, not on where they stand."""
    assert identity(row(2, 3)) != identity(row(23))
    assert identity("a") == "a"


def test_the_gate_measures_ids_as_it_measures_their_text(tmp_path):
    """The same documents as text and as ids in parquet: the same loss; ids that are not their text's: an error."""
    import torch
    from judged import judge

    from sae_checks import checks
    from sae_checks.measuring.local import LocalExecutor
    from sae_checks.model import hugging_face
    from sae_checks.plan.options import Options
    from sae_checks.release import release
    from sae_checks.run.settle import settle

    demo = release.resolve("demo")
    tokenizer = hugging_face.load(demo.model, dtype="float32", device=torch.device("cpu")).tokenizer
    texts = files.read_documents(demo.corpus)[:32]
    ids = [tokenizer(t)["input_ids"] for t in texts]
    with_bos = [[tokenizer.bos_token_id, *of_text] for of_text in ids]
    corpora = {
        "text": parquet(tmp_path / "text.parquet", text=list(texts)),
        "ids": parquet(tmp_path / "ids.parquet", input_ids=with_bos),
        "wrong": parquet(
            tmp_path / "wrong.parquet", input_ids=[[i ^ 1 for i in of_text] for of_text in ids], text=texts
        ),
    }
    results = {}
    for name, path in corpora.items():
        asked = settle(
            Options(release="demo", corpus=str(path), sae_ids=("blocks.1.*",), n_context_tokens=64, device="cpu")
        )
        executor = LocalExecutor(asked.plan)
        (sae_id,) = asked.plan.release.sae_ids
        results[name] = judge(executor, asked, sae_id, checks.CE_LOSS)
    assert results["wrong"].outcome == "error"
    assert "come from another tokenizer than the model's" in results["wrong"].reason
    values = [{e.measure: e.value for e in results[name].estimates} for name in ("text", "ids")]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert results["ids"].provenance.corpus.n_scored_tokens == 32 * 62
