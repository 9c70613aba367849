"""Where a corpus lies: a file, or a Hub dataset at one commit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sae_checks import errors
from sae_checks.release import hub

FILE_SUFFIXES = (".jsonl", ".parquet", ".txt")
_PARQUET_REVISION = "refs/convert/parquet"
"""branch on which the Hub keeps its own conversion of a dataset to parquet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultDataset:
    """The dataset of a corpus for which no option names another."""

    name: str
    split: str
    """default split, also of other datasets for the same corpus."""


# WHY refs/convert/parquet: Open WebText's own repository needs its loading script, and scripts are never run.
TEXT = DefaultDataset(name=f"Skylion007/openwebtext@{_PARQUET_REVISION}:plain_text", split="train")
LAMBADA = DefaultDataset(name="EleutherAI/lambada_openai", split="test")
CBT = DefaultDataset(name="cam-cst/cbt:CN", split="test")


KNOWN_TEXTS = frozenset(
    {"Skylion007/openwebtext", "monology/pile-uncopyrighted", "cerebras/SlimPajama-627B", "lmsys/lmsys-chat-1m"}
)
"""Texts that SAE Lens 6.54 itself names for releases of its registry. Any other is its publisher's choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A dataset of the Hub that is not pinned yet: only what a run needs is asked for."""

    repo_id: str
    revision: str | None = None
    is_training_text: bool = False
    """whether it is a default, which another text replaces if it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSource:
    """Where one corpus lies: one of *path*, *dataset* and *wanted* is given."""

    path: Path | None = None
    dataset: hub.HubRepo | None = None
    wanted: Wanted | None = None
    problem: str | None = None
    """why the Hub does not give what is *wanted*: an error of each check that needs it; None: not known yet."""
    config: str | None = None
    """configuration of the dataset; None: its default."""
    split: str = ""
    label: str | None = None
    """what the record calls a file that was written for this run alone; None: its path."""

    @property
    def name(self) -> str:
        """The path, or `org/name@commit:config:split`; of what is not pinned `org/name[@revision][:config]`."""
        if self.label is not None:
            return self.label
        if self.wanted is not None:
            name = self.wanted.repo_id + ("" if self.wanted.revision is None else f"@{self.wanted.revision}")
            return name if self.config is None else f"{name}:{self.config}"
        if self.dataset is None:
            return str(self.path)
        return ":".join([self.dataset.source, self.config or "default", self.split])

    def pinned(self) -> CorpusSource:
        """
        Pin what is wanted to a commit.

        Raises:
            HubError: the Hub does not give it.
        """
        if self.wanted is None:
            return self
        repo = hub.pin(self.wanted.repo_id, kind="dataset", revision=self.wanted.revision)
        return replace(self, dataset=repo, wanted=None)

    def parquet_files(self) -> tuple[str, ...]:
        """
        Paths of the dataset's parquet files of this configuration and split, found by the usual folder names.

        The Hub's own conversion uses CONFIG/SPLIT/, or CONFIG/partial-SPLIT/ for a large split; pushed datasets use
        CONFIG/SPLIT-*.parquet.
        """
        assert self.dataset is not None
        prefixes = tuple(
            f"{self.config}/{part}" for part in (f"{self.split}/", f"partial-{self.split}/", f"{self.split}-")
        )
        paths = (file.path for file in self.dataset.files)
        return tuple(sorted(path for path in paths if path.startswith(prefixes) and path.endswith(".parquet")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """A training text that cannot be used."""

    reason: str


def find(name: str, *, split: str) -> CorpusSource:
    """
    The file *name*, or the Hub dataset `org/name[@revision][:config][:split]`, which is not pinned yet.

    A *name* that is no file and cannot be a dataset counts as a file: reading it reports that it is missing.

    Args:
        name: path or dataset.
        split: the dataset's split if *name* gives none.
    """
    path = Path(name)
    repo_id, _, rest = name.partition("@")
    revision, _, parts = rest.partition(":")
    if not rest:
        repo_id, _, parts = name.partition(":")
    if path.exists() or path.suffix in FILE_SUFFIXES or not hub.is_repo_id(repo_id):
        return CorpusSource(path=path)
    config, _, named_split = parts.partition(":")
    wanted = Wanted(repo_id=repo_id, revision=revision or None)
    return CorpusSource(wanted=wanted, config=config or None, split=named_split or split)


def training_text(dataset_path: str) -> CorpusSource | Unavailable:
    """
    The dataset that an SAE was trained on, if it can be read without running its loading script.

    The Hub's parquet conversion is tried first, since its folders name the configurations and splits.

    Args:
        dataset_path: `dataset_path` of the SAE's configuration.

    Raises:
        HubBusyError: the Hub does not answer. TRAP: another text must not be used then, or results would depend on it.
    """
    if not hub.is_repo_id(dataset_path):
        return Unavailable(reason=f"{errors.shown(dataset_path)!r} is no dataset of the Hub")
    reasons = []
    for revision in (_PARQUET_REVISION, None):
        try:
            repo = hub.pin(dataset_path, kind="dataset", revision=revision)
        except errors.HubBusyError:
            raise
        except errors.HubError as problem:
            reasons.append(str(problem).partition("\n")[0])
            continue
        found = _converted_by_hub(repo) if revision == _PARQUET_REVISION else _as_pushed(repo)
        if isinstance(found, CorpusSource):
            return found
        reasons.append(found.reason)
    return Unavailable(reason="; ".join(dict.fromkeys(reasons)))


def _converted_by_hub(repo: hub.HubRepo) -> CorpusSource | Unavailable:
    folders = {tuple(file.path.split("/")[:2]) for file in repo.files if file.path.endswith(".parquet")}
    configs = sorted({config for config, *split in folders if split in (["train"], ["partial-train"])})
    chosen = [config for config in configs if config == "default" or len(configs) == 1]
    if not chosen:
        return Unavailable(
            reason=f"{repo.repo_id} has {len(configs)} configurations with a split train, none the default"
        )
    return CorpusSource(dataset=repo, config=chosen[0], split=TEXT.split)


def _as_pushed(repo: hub.HubRepo) -> CorpusSource | Unavailable:
    has_script = repo.file(f"{repo.repo_id.rpartition('/')[2]}.py") is not None
    if has_script or not any(file.path.endswith((".parquet", ".jsonl")) for file in repo.files):
        return Unavailable(reason=f"{repo.repo_id} has no parquet or .jsonl files that can be read without its script")
    return CorpusSource(dataset=repo, split=TEXT.split)
