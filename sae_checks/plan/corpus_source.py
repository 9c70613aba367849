"""Where a corpus lies: a file, or a dataset on the Hub at one commit. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sae_checks import errors
from sae_checks.release import hub

FILE_SUFFIXES = (".jsonl", ".parquet", ".txt")
_CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """What is measured where nothing is asked for."""

    name: str
    split: str
    """taken of every dataset of this kind that names none."""


TEXT = Default(name="Skylion007/openwebtext@refs/convert/parquet:plain_text", split="train")
"""Open WebText as the Hub converts it to parquet: the repository itself needs a loading script, which nothing runs."""
LAMBADA = Default(name="EleutherAI/lambada_openai", split="test")
CBT = Default(name="cam-cst/cbt:CN", split="test")


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

    def parquet_files(self) -> tuple[str, ...]:
        """
        The dataset's parquet files of this config and split, by the places where they usually lie.

        CONFIG/SPLIT/ is how the Hub converts datasets (partial-SPLIT/ if one is large), CONFIG/SPLIT-*.parquet how
        they are pushed.
        """
        assert self.dataset is not None
        begins = tuple(
            f"{self.config}/{part}" for part in (f"{self.split}/", f"partial-{self.split}/", f"{self.split}-")
        )
        paths = (file.path for file in self.dataset.files)
        return tuple(sorted(path for path in paths if path.startswith(begins) and path.endswith(".parquet")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Why a dataset that was not asked for by name is not used."""

    reason: str


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
    if path.exists() or path.suffix in FILE_SUFFIXES or not hub.is_repo_id(repo_id):
        return CorpusPlace(path=path)
    config, _, named_split = parts.partition(":")
    repo = hub.pin(repo_id, kind="dataset", revision=revision or None, offline=offline)
    return CorpusPlace(dataset=repo, config=config or None, split=named_split or split)


def training_text(dataset_path: str, *, offline: bool) -> CorpusPlace | Unavailable:
    """
    The dataset that an SAE's configuration says it was trained on, where it can be read without running its script.

    The Hub's parquet conversion is asked first: it shows configurations and splits by its folders.

    Raises:
        HubBusyError: the Hub does not answer; what is measured must not depend on that.
    """
    if not hub.is_repo_id(dataset_path):
        return Unavailable(reason=f"{errors.shown(dataset_path)!r} is no dataset of the Hub")
    reasons = []
    for revision in (_CONVERTED, None):
        try:
            repo = hub.pin(dataset_path, kind="dataset", revision=revision, offline=offline)
        except errors.HubBusyError:
            raise
        except errors.HubError as problem:
            reasons.append(str(problem).partition("\n")[0])
            continue
        found = _converted(repo) if revision == _CONVERTED else _as_it_is(repo)
        if isinstance(found, CorpusPlace):
            return found
        reasons.append(found.reason)
    return Unavailable(reason="; ".join(dict.fromkeys(reasons)))


def _converted(repo: hub.HubRepo) -> CorpusPlace | Unavailable:
    folders = {tuple(file.path.split("/")[:2]) for file in repo.files if file.path.endswith(".parquet")}
    configs = sorted({config for config, *split in folders if split in (["train"], ["partial-train"])})
    chosen = [config for config in configs if config == "default" or len(configs) == 1]
    if not chosen:
        return Unavailable(
            reason=f"{repo.repo_id} has {len(configs)} configurations with a split train, none the default"
        )
    return CorpusPlace(dataset=repo, config=chosen[0], split=TEXT.split)


def _as_it_is(repo: hub.HubRepo) -> CorpusPlace | Unavailable:
    has_script = repo.file(f"{repo.repo_id.rpartition('/')[2]}.py") is not None
    if has_script or not any(file.path.endswith((".parquet", ".jsonl")) for file in repo.files):
        return Unavailable(reason=f"{repo.repo_id} has no parquet or .jsonl files that can be read without its script")
    return CorpusPlace(dataset=repo, split=TEXT.split)
