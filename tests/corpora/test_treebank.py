"""Tokens of the Penn Treebank as they are written: by example, and back from the tokenizer that makes them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_checks.corpora.treebank import detokenise

words = st.sampled_from(["the", "cat", "Mary's", "don't", "they'll", "I'm", "we've", "she'd", "cannot", "3.50", "U.S."])
clauses = st.lists(words, min_size=1, max_size=6).map(" ".join)
quoted = clauses.map(lambda text: f'"{text}"')
bracketed = clauses.map(lambda text: f"({text})")
parts = st.lists(clauses | quoted | bracketed, min_size=1, max_size=4)
sentences = st.tuples(parts, st.sampled_from([", ", "; ", " "]), st.sampled_from(".?!")).map(
    lambda s: s[1].join(s[0]) + s[2]
)


TOKENIZER_SED = (
    (r'^"', "`` "),
    (r'([ (\[{<])"', r"\1 `` "),
    (r"\.\.\.", " ... "),
    (r"[,;:@#$%&]", r" \g<0> "),
    (r"([^.])(\.)([\])}>\"']*)\s*$", r"\1 \2\3 "),
    (r"[?!]", r" \g<0> "),
    (r"\(", " -LRB- "),
    (r"\)", " -RRB- "),
    (r"--", " -- "),
    (r"$|^", " "),
    (r'"', " '' "),
    (r"([^'])' ", r"\1 ' "),
    (r"'([sSmMdD]) ", r" '\1 "),
    (r"('ll|'re|'ve|n't) ", r" \1 "),
    (r" ([Cc])annot ", r" \1an not "),
)
"""R. MacIntyre's script, less what the sentences here do not have."""


@pytest.mark.parametrize(
    ("tokens", "written"),
    [
        ("`` Well , '' said the Fox , `` I do n't know . ''", '"Well," said the Fox, "I don\'t know."'),
        ("She ca n't and wo n't .", "She can't and won't."),
        ("It 's the King 's , and I 'll take it !", "It's the King's, and I'll take it!"),
        ("the boys ' caps", "the boys' caps"),
        ("` Come , ' he said .", "'Come,' he said."),
        ("`` ' Come , ' he said , '' she told us .", "\"'Come,' he said,\" she told us."),
        ("one thing -- children .", "one thing--children."),
        ("But -- '' he began .", 'But--" he began.'),
        ("-LRB- see below -RRB- , -LSB- 3 -RSB- and -LCB- x -RCB- .", "(see below), [3] and {x}."),
        ('He said " no " and " yes " .', 'He said "no" and "yes".'),
        ("$ 3.50 , or 5 % of it", "$3.50, or 5% of it"),
        ("Wait ... what ?", "Wait... what?"),
        ("I can not ; he is gon na .", "I cannot; he is gonna."),
        ("'T was night", "'Twas night"),
        ("  spaces   do not count  ", "spaces do not count"),
        ("", ""),
        ("plain words", "plain words"),
    ],
)
def test_what_is_written(tokens, written):
    """Quotes, brackets, contractions, dashes and punctuation stand where a book has them."""
    assert detokenise(tokens) == written


@given(sentences)
def test_it_undoes_the_treebank_tokenizer(sentence):
    """What the Treebank's own script takes apart comes back, brackets and quotes as they were."""
    tokens = sentence
    for pattern, made in TOKENIZER_SED:
        tokens = re.sub(pattern, made, tokens)
    assert detokenise(tokens) == sentence


@given(sentences)
def test_what_is_written_stays(sentence):
    """Running text that is no list of tokens is left as it is."""
    assert detokenise(sentence) == sentence
