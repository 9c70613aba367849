"""
Penn Treebank tokens -> English as it is written.

The Children's Book Test was tokenised as the Treebank is; language models have seen untokenised text.

Source: what R. MacIntyre's tokenizer.sed (Penn Treebank project, 1995) does to a text, undone, as far as it can be:
where it put spaces is known by token, how many there were is not. `nltk.tokenize.treebank` documents the same rules.
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
    *sentence*, tokens apart by spaces, as it is written.

    A double dash stands between words without spaces, as tokenizer.sed found it and as books of Project Gutenberg have
    it. A single quote mark that stands alone opens at the start and behind what opens, and closes elsewhere.
    """
    written: list[str] = []
    joins = True  # nothing stands between what was written last and what comes
    is_open = False  # a straight double quote: those have no side of their own
    before = ""
    for part in sentence.split():
        opens = part in ("``", "`") or _WRITTEN.get(part, part) in _OPENING
        if part == '"':
            opens, is_open = not is_open, not is_open
        if part == "'":
            opens = joins
        closes = not opens and (
            part in ('"', "'", "''")
            or _WRITTEN.get(part, part) in _CLOSING
            or part.lower() in _ENDINGS
            or (before.lower(), part.lower()) in _CONTRACTED
        )
        if not (joins or closes or part == "--"):
            written.append(" ")
        written.append(_WRITTEN.get(part, part))
        joins = opens or part == "--"
        before = part
    return "".join(written)
