"""
Write the demo's Children's Book Test: ten-way choices whose answers the passage determines.

python -m sae_checks.demo.choices --seed 0 --out sae_checks/demo/files
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sae_checks.demo.stories import HE, PREPOSITION_OF, RECALL_MARK, SHE, THINGS, Story, n_tokens, published

SEED = 3_000_000  # apart from those of the other corpora (train_model.py)
N_QUERIES = 150
N_OPTIONS = 10
# WHY at most 62: with the BOS within the SAEs' training context of 64. The first SAE breaks down beyond it, which
# long_context reports already.
PASSAGE_AND_QUERY_TOKENS = (30, 62)

Row = dict[str, object]


def rows(seed: int) -> Iterator[Row]:
    """Endless rows in the form of cam-cst/cbt: sentences, question, answer, options."""
    rng = random.Random(seed)
    shortest, longest = PASSAGE_AND_QUERY_TOKENS
    while True:
        story = Story(rng)
        while n_tokens(story.marked_text) < longest:
            story.add_sentence()
        # WHY two facts: with one, the answer follows from the first words of the passage
        fitting = [
            index
            for index, n_facts in enumerate(story.n_facts_before)
            if n_facts >= 2
            and RECALL_MARK in story.sentences[index]
            and shortest <= n_tokens(" ".join(story.sentences[: index + 1])) <= longest
        ]
        if fitting:
            yield _row(story.sentences[: rng.choice(fitting) + 1], rng)


def _row(sentences: list[str], rng: random.Random) -> Row:
    *passage, last = sentences
    head, _, rest = last.partition(RECALL_MARK)
    before, _, answer = head.rpartition(" ")
    mentioned = {word.strip(".,") for sentence in passage for word in published(sentence).split()}
    others = [word for word in _same_category(answer) if word != answer]
    # the harder choices first: words of the passage, and places with the same preposition
    others.sort(
        key=lambda word: (word not in mentioned, PREPOSITION_OF.get(word) != PREPOSITION_OF.get(answer), rng.random())
    )
    options = [answer, *others[: N_OPTIONS - 1]]
    rng.shuffle(options)
    return {
        "sentences": [_tokenised(published(sentence)) for sentence in passage],
        "question": _tokenised(f"{before} XXXXX{rest}"),
        "answer": answer,
        "options": options,
    }


def _same_category(answer: str) -> tuple[str, ...]:
    if answer in THINGS:
        return THINGS
    return tuple(PREPOSITION_OF) if answer in PREPOSITION_OF else SHE + HE


def _tokenised(sentence: str) -> str:
    """*sentence* with punctuation set apart, as in the Penn Treebank and the Children's Book Test."""
    return sentence.replace(",", " ,").replace(".", " .")


def main() -> None:
    """Write cbt.jsonl under --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    lines = (json.dumps(row) + "\n" for row in islice(rows(arguments.seed + SEED), N_QUERIES))
    (arguments.out / "cbt.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
