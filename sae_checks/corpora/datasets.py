"""Rows of a Hub dataset, streamed by commit: no script of the dataset is run, and only what is needed is fetched."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from sae_checks import errors
from sae_checks.corpora.rows import Pretokenised, RowError
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.release import retries

_N_SHUFFLED = 1000
"""Rows among which the stream is shuffled: a longer buffer fetches more before the first row comes out."""
_READ_TIMEOUT_S = 300.0
"""datasets by itself was seen to retry a Hub that is busy (429) for more than eight minutes."""
_N_PACKED_PER_DOCUMENT = 16
"""Rows of token ids that are read for one document: packed, a document goes over several, and one of them is used."""

Row = TypeVar("Row")


def read_rows(
    place: CorpusSource, kind: Callable[[object], Row], *, n_most: int, seed: int, flag: str
) -> tuple[Row, ...]:
    """
    At most *n_most* rows as *kind* reads them, in the stream's order, shuffled by *seed*.

    Rows of token ids stay in their own order and more of them are read: what lies packed in neighbouring rows belongs
    together (see `pretokenised`).

    Raises:
        MeasuringError: the dataset cannot be read, or a row is not of that kind.
    """
    assert place.dataset is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller's `-W error` is for the caller's code
        import datasets

        def read() -> tuple[Row, ...]:
            n = n_most
            stream = datasets.load_dataset(**_arguments(place), streaming=True)
            if isinstance(_first(stream, kind), Pretokenised):
                stream = stream.shuffle(seed=seed, buffer_size=1)  # the order of the files, not of their rows
                n *= _N_PACKED_PER_DOCUMENT
            else:
                stream = stream.shuffle(seed=seed, buffer_size=_N_SHUFFLED)
            return tuple(kind(row) for row in islice(stream, n))

        try:
            return retries.within(read, _READ_TIMEOUT_S)
        except RowError as problem:
            raise errors.dataset_not_read(flag, place.name, f"a row {problem}") from None
        except Exception as problem:  # datasets raises whatever a bad repository makes of it
            raise errors.dataset_not_read(flag, place.name, f"{type(problem).__name__}: {problem}") from problem


def _first(stream: Any, kind: Callable[[object], Row]) -> Row | None:  # Any: datasets has no types
    return next((kind(row) for row in stream), None)


def _arguments(place: CorpusSource) -> dict[str, Any]:  # a dict: keyword arguments of load_dataset
    """How `datasets` names *place*."""
    repo = place.dataset
    assert repo is not None
    # The Hub's own parquet conversion has no card that says which files are which, and beside a loading script, which
    # nothing runs, the card is not asked: the files that lie where they belong are named one by one.
    script = f"{repo.repo_id.rpartition('/')[2]}.py"
    paths = place.parquet_files()
    if (repo.file("README.md") is not None and repo.file(script) is None) or not paths:
        return {"path": repo.repo_id, "name": place.config, "split": place.split, "revision": repo.commit}
    urls = [f"hf://datasets/{repo.repo_id}@{repo.commit}/{path}" for path in paths]
    return {"path": "parquet", "data_files": {place.split: urls}, "split": place.split}
