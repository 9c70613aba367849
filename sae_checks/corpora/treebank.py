"""
Penn Treebank tokens -> ordinary English text, which language models were trained on.

The Children's Book Test is tokenised like the Treebank. `detokenise` undoes the tokenizer's rules; only the number of
spaces between words cannot be restored.

Source: R. MacIntyre's tokenizer.sed (Penn Treebank project, 1995); `nltk.tokenize.treebank` documents the same rules.
"""

from __future__ import annotations

_WRITTEN = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
    "``": '"',
    "''": '"',
    "`": "'",
}
_OPENING = {"(", "[", "{", "$", "#"}
_CLOSING = {")", "]", "}", ",", ".", ";", ":", "!", "?", "%", "...", "...."}
_ENDINGS = {"n't", "'s", "'m", "'d", "'ll", "'re", "'ve"}
_CONTRACTED = {
    ("can", "not"),
    ("gim", "me"),
    ("gon", "na"),
    ("got", "ta"),
    ("lem", "me"),
    ("wan", "na"),
    ("d'", "ye"),
    ("'t", "is"),
    ("'t", "was"),
}


def detokenise(sentence: str) -> str:
    """
    *sentence*, space-separated Treebank tokens, as ordinary text.

    A double dash joins words without spaces, as in books of Project Gutenberg. A lone single quote mark opens at the
    start and after an opening token, and closes elsewhere.
    """
    text: list[str] = []
    joins_next = True  # no space before the next word
    in_quotes = False  # TRAP: a straight double quote looks the same when it opens and closes
    before = ""
    for word in sentence.split():
        opens = word in ("``", "`") or _WRITTEN.get(word, word) in _OPENING
        if word == '"':
            opens, in_quotes = not in_quotes, not in_quotes
        if word == "'":
            opens = joins_next
        closes = not opens and (
            word in ('"', "'", "''")
            or _WRITTEN.get(word, word) in _CLOSING
            or word.lower() in _ENDINGS
            or (before.lower(), word.lower()) in _CONTRACTED
        )
        if not (joins_next or closes or word == "--"):
            text.append(" ")
        text.append(_WRITTEN.get(word, word))
        joins_next = opens or word == "--"
        before = word
    return "".join(text)
