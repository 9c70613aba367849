"""Rows of a Hub dataset, streamed at one commit without running the dataset's script."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from sae_checks import errors
from sae_checks.corpora.rows import Pretokenised, RowError
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.release import retries

_N_BUFFERED_ROWS = 1000
"""length of the shuffle buffer; a longer one fetches more before the first row comes out."""
_READ_TIMEOUT_S = 300.0
"""WHY: `datasets` by itself was seen to retry a busy Hub (429) for more than eight minutes."""
_N_ROWS_PER_DOCUMENT = 16
"""packed rows of token ids to read for each document: a document goes over several rows, and one of them is used."""

Row = TypeVar("Row")


def read_rows(
    source: CorpusSource, parse: Callable[[object], Row], *, max_rows: int, seed: int, flag: str
) -> tuple[Row, ...]:
    """
    Read at most *max_rows* rows of a dataset, shuffled by *seed*.

    Rows of token ids are not shuffled, and 16 times as many are read, since packed documents go over neighbouring rows
    (see `pretokenised`).

    Args:
        source: the dataset.
        parse: turns a row into its checked form.
        max_rows: number of rows to read.
        seed: of the shuffle.
        flag: the option that names the corpus, for messages.

    Raises:
        MeasuringError: the dataset cannot be read, or *parse* refuses a row.
    """
    assert source.dataset is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller's `-W error` is for the caller's code
        import datasets

        def read() -> tuple[Row, ...]:
            n = max_rows
            stream = datasets.load_dataset(**_arguments(source), streaming=True)
            if isinstance(_first(stream, parse), Pretokenised):
                stream = stream.shuffle(seed=seed, buffer_size=1)  # shuffles the order of files, not of rows
                n *= _N_ROWS_PER_DOCUMENT
            else:
                stream = stream.shuffle(seed=seed, buffer_size=_N_BUFFERED_ROWS)
            return tuple(parse(row) for row in islice(stream, n))

        try:
            return retries.within(read, _READ_TIMEOUT_S)
        except RowError as problem:
            raise errors.dataset_not_read(flag, source.name, f"a row {problem}") from None
        except Exception as problem:  # a bad repository can make `datasets` raise anything
            raise errors.dataset_not_read(flag, source.name, f"{type(problem).__name__}: {problem}") from problem


def _first(stream: Any, parse: Callable[[object], Row]) -> Row | None:  # Any: datasets has no types
    return next((parse(row) for row in stream), None)


def _arguments(source: CorpusSource) -> dict[str, Any]:  # a dict: keyword arguments of load_dataset
    """Arguments with which `datasets.load_dataset` finds *source*."""
    repo = source.dataset
    assert repo is not None
    # WHY: the Hub's parquet conversion has no card that lists its files, and `datasets` ignores the card if there is a
    # loading script, which must not run. In both cases the parquet files are passed one by one.
    script = f"{repo.repo_id.rpartition('/')[2]}.py"
    paths = source.parquet_files()
    if (repo.file("README.md") is not None and repo.file(script) is None) or not paths:
        return {"path": repo.repo_id, "name": source.config, "split": source.split, "revision": repo.commit}
    urls = [f"hf://datasets/{repo.repo_id}@{repo.commit}/{path}" for path in paths]
    return {"path": "parquet", "data_files": {source.split: urls}, "split": source.split}
