"""Where a corpus lies: a file, or a dataset on the Hub at one commit. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sae_checks import hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """What is measured where nothing is asked for."""

    name: str
    split: str
    """taken of every dataset of this kind that names none."""


TEXT = Default(name="Skylion007/openwebtext@refs/convert/parquet:plain_text", split="train")
"""Open WebText as the Hub converts it to parquet: the repository itself needs a loading script, which nothing runs."""
LAMBADA = Default(name="EleutherAI/lambada_openai", split="test")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusPlace:
    """A file, or a dataset; one of the two."""

    path: Path | None = None
    dataset: hub.HubRepo | None = None
    config: str | None = None
    """of the dataset; None: its default."""
    split: str = ""

    @property
    def source(self) -> str:
        """The path, or `org/name@commit:config:split`."""
        if self.dataset is None:
            return str(self.path)
        return ":".join([self.dataset.source, self.config or "default", self.split])


def find(asked: str, *, split: str, offline: bool) -> CorpusPlace:
    """
    The file *asked*, or the Hub dataset `org/name[@revision][:config][:split]`; *split* where none is named.

    A name that is neither a file nor can be a dataset is taken for a file, whose reader says that it is missing.

    Raises:
        HubError: the Hub does not tell the dataset's commit.
    """
    path = Path(asked)
    repo_id, _, rest = asked.partition("@")
    revision, _, parts = rest.partition(":")
    if not rest:
        repo_id, _, parts = asked.partition(":")
    if path.exists() or path.suffix in (".jsonl", ".txt") or not hub.is_repo_id(repo_id):
        return CorpusPlace(path=path)
    config, _, named_split = parts.partition(":")
    repo = hub.pin(repo_id, kind="dataset", revision=revision or None, offline=offline)
    return CorpusPlace(dataset=repo, config=config or None, split=named_split or split)
