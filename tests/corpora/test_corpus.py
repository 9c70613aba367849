"""Files of text -> tokens, masks and a fingerprint, by examples worked by hand."""

import re
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import BOS, LetterTokenizer, WordTokenizer
from strategies import document_lists

from sae_checks import errors
from sae_checks.corpora import files, lambada, text
from sae_checks.corpora.sequences import Convention, TokenRow, build, encode, seeded_order


def convention(*, n_context_tokens=8, prepend_bos=True, special_tokens_kept=True):
    return Convention(
        prepend_bos=prepend_bos, special_tokens_kept=special_tokens_kept, n_context_tokens=n_context_tokens
    )


def tokenised(documents, *, tokenizer=None, bos=BOS, n_sequences=100, seed=0, **of_convention):
    tokenizer = WordTokenizer() if tokenizer is None else tokenizer
    return text.tokenise(documents, tokenizer, convention(**of_convention), bos=bos, max_rows=n_sequences, seed=seed)


def passages(items, *, tokenizer=None, bos=BOS, n_items=100, seed=0, **of_convention):
    tokenizer = WordTokenizer() if tokenizer is None else tokenizer
    return lambada.tokenise(items, tokenizer, convention(**of_convention), bos=bos, max_rows=n_items, seed=seed)


def marks(flags):
    """Masks as words: x where set."""
    return ["".join(".x"[int(flag)] for flag in row) for row in flags]


def row(tokens, *, index=0, n_given=1):
    return TokenRow(row=index, tokens=tokens, n_given=n_given, was_cut=False)


def alike(one, other):
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


@pytest.fixture
def write(tmp_path):
    def _write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def test_jsonl_has_a_document_per_line(write):
    """Other keys and blank lines are passed over, empty documents too, and the order is the file's."""
    path = write("c.jsonl", '{"text": "one"}\n\n{"id": 3, "text": "two\\nlines"}\n{"text": "  "}\n{"text": "three"}')
    assert files.read_documents(path) == ("one", "two\nlines", "three")


def test_jsonl_lines_end_with_a_newline_only(write):
    """Other separators that Unicode calls line ends are part of a document."""
    path = write("c.jsonl", '{"text": "a\u2028b\x85c\u2029d"}\n{"text": "e"}\r\n')
    assert files.read_documents(path) == ("a\u2028b\x85c\u2029d", "e")


def test_txt_has_documents_between_blank_lines(write):
    """One or more blank lines, also of spaces, part documents; line ends within one stay."""
    path = write("c.txt", "\n\none\ntwo\n\n \t\n three \r\n\r\nfour")
    assert files.read_documents(path) == ("one\ntwo", "three", "four")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.jsonl", "", "no text"),
        ("c.jsonl", "\n \n", "no text"),
        ("c.jsonl", '{"text": " "}', "no text"),
        ("c.jsonl", '{"text": "a"}\n\nnot json', "line 3 "),
        ("c.jsonl", '{"text": "a"}\n{"text": "b"', "line 2 "),
        ("c.jsonl", '{"text": "a"}\n["text"]', "line 2 "),
        ("c.jsonl", '{"text": "a"}\n"text"', "line 2 "),
        ("c.jsonl", '{"text": "a"}\nnull', "line 2 "),
        ("c.jsonl", '{"Text": "a"}', "line 1 "),
        ("c.jsonl", '{"text": 3}', "line 1 "),
        ("c.jsonl", '{"text": null}', "line 1 "),
        ("c.jsonl", '{"text": ["a"]}', "line 1 "),
        ("c.jsonl", "[" * 100_000, "line 1 "),
        ("c.jsonl", '{"text": "a"}\n{"text": "half of a pair: \\ud83d"}', "line 2 "),
        ("c.jsonl", b'{"text": "\xff"}', "cannot be read"),
        ("c.txt", "", "no text"),
        ("c.txt", "\n \n\t\n", "no text"),
        ("c.txt", b"\xff", "cannot be read"),
        ("c.csv", "text\na", "unknown form"),
        ("c", "a", "unknown form"),
    ],
)
def test_a_malformed_corpus_is_refused(write, name, content, words):
    """A UsageError that names the flag, the file and the line."""
    with pytest.raises(errors.UsageError, match=r"^--sae-corpus .*c") as caught:
        files.read_documents(write(name, content))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.jsonl", "", "no passage"),
        ("l.jsonl", '{"text": "a word"}\n{"text": "word"}', "line 2 has no last word"),
        ("l.jsonl", '{"text": "a word "}', "line 1 has no last word"),
        ("l.jsonl", '{"text": " word"}', "line 1 has no last word"),
        ("l.jsonl", '{"text": ""}', "line 1 has no last word"),
        ("l.jsonl", '{"text": "a\\nword"}', "line 1 has no last word"),
        ("l.jsonl", '{"text": 3}', "line 1 "),
        ("l.jsonl", '{"text": "half of a pair: \\ud83d"}', "line 1 "),
        ("l.jsonl", b'{"text": "a \xff"}', "cannot be read"),
        ("l.txt", "a word", "unknown form"),
    ],
)
def test_a_malformed_lambada_file_is_refused(write, name, content, words):
    """The same for passages, which need a context and a last word."""
    with pytest.raises(errors.UsageError, match=r"^--sae-lambada .*l") as caught:
        files.read_passages(write(name, content))
    assert words in str(caught.value)


def test_missing_files_are_refused(tmp_path):
    """A file that is not there, or is a folder, is a UsageError."""
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("none.jsonl", "folder.jsonl"):
        for read in (files.read_documents, files.read_passages):
            with pytest.raises(errors.UsageError, match="cannot be read"):
                read(tmp_path / name)


def test_passages_are_kept_as_they_are(write):
    """Nothing is stripped from a passage: its spaces are part of its tokens."""
    path = write("l.jsonl", '{"text": " she said  hello"}\n\n{"text": "two\\nlines here"}\n')
    assert files.read_passages(path) == (" she said  hello", "two\nlines here")


def test_special_tokens_are_kept_apart():
    """BOS and <unk> are not replaced, and predictions from them and of them are not scored."""
    found = build([row([BOS, 5, 6, 1, 7, 8])], convention(), [BOS, 1], score_special=False)
    assert marks(found.replaced) == [".xx.xx"]
    assert marks(found.scored) == [".x..x."]


def test_special_tokens_can_be_treated_like_any_other():
    """With the rule `replace` every real token is replaced and every prediction scored."""
    kept = convention(special_tokens_kept=False)
    found = build([row([BOS, 5, 6, 1, 7, 8])], kept, [BOS, 1], score_special=False)
    assert marks(found.replaced) == ["xxxxxx"]
    assert marks(found.scored) == ["xxxxx."]


def test_padding_is_known_by_length():
    """BOS, EOS and padding are one id, and an ordinary token may have the id of the filling."""
    rows = [row([BOS, 5, 6, 7]), row([BOS, 5]), row([BOS, 8, 9], index=4)]
    found = build(rows, convention(), [BOS], score_special=False)
    assert found.lengths.tolist() == [4, 2, 3]
    assert found.rows.tolist() == [0, 0, 4]
    assert marks(found.replaced) == [".xxx", ".x..", ".xx."]
    assert marks(found.scored) == [".xx.", "....", ".x.."]
    ordinary = build([row([3, 0, 0, 4]), row([3, 0])], convention(), [7], score_special=False)
    assert marks(ordinary.replaced) == ["xxxx", "xx.."]
    assert marks(ordinary.scored) == ["xxx.", "x..."]


def test_what_is_given_is_not_scored():
    """Only tokens from n_given on are predicted."""
    found = build(
        [row([BOS, 5, 6, 7, 8], n_given=3), row([BOS, 5, 6], n_given=2)], convention(), [BOS], score_special=True
    )
    assert marks(found.scored) == ["..xx.", ".x..."]


def test_special_tokens_in_an_answer_are_scored():
    """With score_special an <unk> is predicted and predicted from like any other; it is still not replaced."""
    found = build([row([BOS, 5, 1, 6], n_given=2)], convention(), [BOS, 1], score_special=True)
    assert marks(found.scored) == [".xx."]
    assert marks(found.replaced) == [".x.x"]


def test_nothing_builds_nothing():
    """No row: arrays of no rows, and a fingerprint all the same."""
    found = build([], convention(), [BOS], score_special=False)
    assert found.tokens.shape == found.scored.shape == (0, 0)
    assert re.fullmatch("[0-9a-f]{64}", found.fingerprint)


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=9), min_size=1, max_size=6), st.booleans(), st.booleans()
)
def test_nothing_beyond_the_end_is_replaced_or_scored(token_lists, kept, score_special):
    """Whatever the tokens: padding is neither, and the last token of a sequence predicts nothing."""
    rows = [row(tokens, index=i) for i, tokens in enumerate(token_lists)]
    found = build(rows, convention(special_tokens_kept=kept), [0, 1], score_special=score_special)
    for tokens, replaced, scored in zip(token_lists, found.replaced, found.scored, strict=True):
        assert not replaced[len(tokens) :].any()
        assert not scored[len(tokens) - 1 :].any()
        assert replaced.sum() == sum(not kept or token > 1 for token in tokens)
        pairs = pairwise(tokens)
        assert scored.sum() == sum(score_special or not kept or (a > 1 and b > 1) for a, b in pairs)


@given(document_lists, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_file(documents, seed, random):
    """Sorting the file differently measures the same texts in the same order."""
    shuffled = random.sample(documents, len(documents))
    order, other = seeded_order(documents, seed), seeded_order(shuffled, seed)
    assert [documents[i] for i in order] == [shuffled[i] for i in other]
    assert sorted(order) == list(range(len(documents)))


def test_the_order_changes_with_the_seed():
    """Ten seeds, ten orders; the same seed, the same order."""
    documents = [f"document {i}" for i in range(20)]
    orders = {tuple(seeded_order(documents, seed)) for seed in range(10)}
    assert len(orders) == 10
    assert seeded_order(documents, 3) == seeded_order(documents, 3)
    assert tuple(range(20)) not in orders


def test_fewer_sequences_are_a_prefix_of_more():
    """The order is settled before it is cut: asking for more keeps what was measured."""
    documents = [f"this is document {i}" for i in range(9)]
    few, many = tokenised(documents, n_sequences=4), tokenised(documents, n_sequences=7)
    assert few.rows.tolist() == many.rows.tolist()[:4]
    assert tokenised(documents, n_sequences=100).rows.size == 9


def test_the_fingerprint_is_of_everything_measured():
    """Any one token, length or mask that differs gives another fingerprint; the same gives the same."""
    documents = ["a b c d", "e f g"]
    found = tokenised(documents)
    assert tokenised(documents).fingerprint == found.fingerprint
    prints = {found.fingerprint}
    for field in ("tokens", "lengths", "replaced", "scored"):
        for place in range(getattr(found, field).size):
            array = getattr(found, field).copy()
            array.flat[place] ^= 1
            prints.add(replace(found, **{field: array}).fingerprint)
    n_numbers = sum(getattr(found, f).size for f in ("tokens", "lengths", "replaced", "scored"))
    assert len(prints) == 1 + n_numbers


def test_the_fingerprint_changes_with_every_convention():
    """Another BOS rule, rule for special tokens, context or seed is another measurement."""
    documents = [f"{'the ' * i}story of number {i} is long" for i in range(5)]
    others = [
        tokenised(documents),
        tokenised(documents, bos=None, prepend_bos=False),
        tokenised(documents, special_tokens_kept=False),
        tokenised(documents, n_context_tokens=5),
        tokenised(documents, seed=1),
        tokenised(documents, n_sequences=4),
    ]
    assert len({found.fingerprint for found in others}) == len(others)


def test_one_sequence_per_document_with_exactly_one_bos():
    """A long document is cut to the context, never chunked; the BOS counts towards it."""
    documents = ["a b c d e f", "a b", "c d e"]
    found = tokenised(documents, n_context_tokens=4)
    assert sorted(found.rows.tolist()) == [0, 1, 2]
    assert (found.tokens[:, 0] == BOS).all()
    assert dict(zip(found.rows.tolist(), found.lengths.tolist(), strict=True)) == {0: 4, 1: 3, 2: 4}
    for tokens, length in zip(found.tokens, found.lengths, strict=True):
        assert (tokens[1:length] != BOS).all()
    assert found.n_cut == 1


def test_without_a_bos_there_is_none():
    """The first token is the document's, and the prediction made from it is scored."""
    found = tokenised(["a b c"], bos=None, prepend_bos=False, n_context_tokens=3)
    assert found.tokens.tolist() == [[2, 3, 4]]
    assert (marks(found.replaced), marks(found.scored)) == (["xxx"], ["xx."])
    assert found.n_cut == 0


def test_documents_with_nothing_to_predict_are_passed_over():
    """Fewer than two tokens: the next document takes the place."""
    found = tokenised(["a", "", "b c", "d e"], n_sequences=2)
    assert sorted(found.rows.tolist()) == [2, 3]
    assert tokenised(["a", ""]).rows.size == 0


@given(document_lists, st.integers(2, 12))
def test_a_sequence_is_the_beginning_of_its_document(documents, n_context_tokens):
    """Whatever the documents: BOS, then the document's own tokens, cut at the context."""
    tokenizer = WordTokenizer()
    found = tokenised(documents, tokenizer=tokenizer, n_context_tokens=n_context_tokens)
    for index, tokens, length in zip(found.rows, found.tokens, found.lengths, strict=True):
        assert tokens[:length].tolist() == [BOS, *encode(tokenizer, documents[index])][:n_context_tokens]
    beginnings = {tuple(d.split()[: n_context_tokens - 1]) for d in documents if len(d.split()) >= 2}
    assert len(found.rows) == len(beginnings)
    assert found.n_cut == sum(1 + len(documents[i].split()) > n_context_tokens for i in found.rows)


def test_only_the_last_word_is_scored():
    """The context is given, the answer predicted, all of its tokens and nothing else."""
    found = passages(["a b c d"])
    assert found.tokens.tolist() == [[BOS, 2, 3, 4, 5]]
    assert marks(found.scored) == ["...x."]
    assert marks(found.replaced) == [".xxxx"]


def test_an_answer_of_several_tokens_is_scored_as_a_whole():
    """The passage is encoded once, and split after as many tokens as its context has."""
    found = passages(["ab cde"], tokenizer=LetterTokenizer(), n_context_tokens=20)
    assert marks(found.scored) == ["..xxxx."]  # BOS a b | _ c d e: the space belongs to the answer


def test_spaces_before_the_answer_belong_to_it():
    """The context is stripped on the right, as lm-evaluation-harness does."""
    found = passages(["ab  c"], tokenizer=LetterTokenizer(), n_context_tokens=20)
    assert marks(found.scored) == ["..xxx."]


def test_a_long_passage_loses_its_beginning_and_keeps_the_bos():
    """Cut on the left, after the BOS; the answer is whole."""
    found = passages(["a b c d e f"], n_context_tokens=4)
    assert found.tokens.tolist() == [[BOS, 5, 6, 7]]
    assert marks(found.scored) == ["..x."]
    assert found.n_cut == 1
    without = passages(["a b c d e f"], n_context_tokens=4, bos=None, prepend_bos=False)
    assert without.tokens.tolist() == [[4, 5, 6, 7]]
    assert marks(without.scored) == ["..x."]


def test_an_unknown_answer_is_scored():
    """A model that knows no such word is wrong about it: <unk> is not left out."""
    tokenizer = WordTokenizer("xyzzy")
    found = passages(["say xyzzy", "xyzzy says hello"], tokenizer=tokenizer)
    of_item = dict(zip(found.rows.tolist(), marks(found.scored), strict=True))
    assert of_item == {0: ".x..", 1: "..x."}
    assert found.tokens[found.rows == 0, 2] == 1


def test_at_most_so_many_passages_are_taken():
    """In seeded order, the same as the seed says."""
    items = [f"this is passage {i}" for i in range(9)]
    found = passages(items, n_items=3, seed=5)
    assert found.rows.tolist() == seeded_order(items, 5)[:3]


@pytest.mark.parametrize(("item", "n_context_tokens", "bos"), [("ab cdefgh", 6, BOS), ("ab cdefgh", 7, None)])
def test_an_answer_that_fills_the_context_cannot_be_scored(item, n_context_tokens, bos):
    """With no token of context left there is nothing to predict it from."""
    with pytest.raises(errors.MeasuringError, match="passage 0 cannot be scored"):
        passages([item], tokenizer=LetterTokenizer(), n_context_tokens=n_context_tokens, bos=bos)


def test_an_answer_without_a_token_cannot_be_scored():
    """A last word that the tokenizer drops is no question."""

    class Dropping(WordTokenizer):
        def __call__(self, text, **kwargs):
            return super().__call__(text.replace("dropped", ""), **kwargs)

    with pytest.raises(errors.MeasuringError, match="passage 0 cannot be scored"):
        passages(["it was dropped"], tokenizer=Dropping())


def test_tokens_are_those_of_the_text_alone():
    """The tokenizer adds no special token of its own, and one spelled out in a text is text."""
    assert encode(WordTokenizer(), "a b a") == [2, 3, 2]
    assert alike(tokenised(["a b"]), tokenised(["a b"]))
