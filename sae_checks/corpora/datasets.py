"""Texts of a Hub dataset, streamed by commit: no script of the dataset is run, and only what is needed is fetched."""

from __future__ import annotations

import warnings
from itertools import islice
from typing import Any

from sae_checks import errors, patience
from sae_checks.corpus_place import CorpusPlace

_N_SHUFFLED = 1000
"""Rows among which the stream is shuffled: a longer buffer fetches more before the first row comes out."""
_READ_WITHIN_S = 300.0
"""datasets by itself was seen to retry a Hub that is busy (429) for more than eight minutes."""


def read_texts(place: CorpusPlace, *, n_most: int, seed: int | None, flag: str) -> tuple[str, ...]:
    """
    At most *n_most* values of the column `text`, in the stream's order, shuffled by *seed* unless it is None.

    Raises:
        MeasuringError: the dataset cannot be read, or has no such column.
    """
    assert place.dataset is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller's `-W error` is for the caller's code
        import datasets

        def read() -> list[Any]:
            stream = datasets.load_dataset(**_arguments(place), streaming=True)
            if seed is not None:
                stream = stream.shuffle(seed=seed, buffer_size=_N_SHUFFLED)
            return [row["text"] for row in islice(stream, n_most)]

        try:
            rows = patience.in_time(read, _READ_WITHIN_S)
        except Exception as problem:  # datasets raises whatever a bad repository makes of it
            raise errors.dataset_not_read(flag, place.source, f"{type(problem).__name__}: {problem}") from problem
    if not all(isinstance(text, str) for text in rows):
        raise errors.dataset_not_read(flag, place.source, "its column text holds something else than text")
    return tuple(rows)


def _arguments(place: CorpusPlace) -> dict[str, Any]:  # a dict: keyword arguments of load_dataset
    """How `datasets` names *place*."""
    repo = place.dataset
    assert repo is not None
    if repo.file("README.md") is not None or place.config is None:
        return {"path": repo.repo_id, "name": place.config, "split": place.split, "revision": repo.commit}
    # The Hub's own parquet conversion has no card that says which files are which: they lie in CONFIG/SPLIT/.
    inside = f"{place.config}/{place.split}/"
    paths = [file.path for file in repo.files if file.path.startswith(inside) and file.path.endswith(".parquet")]
    urls = [f"hf://datasets/{repo.repo_id}@{repo.commit}/{path}" for path in sorted(paths)]
    return {"path": "parquet", "data_files": {place.split: urls}, "split": place.split}
