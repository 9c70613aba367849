"""
The Hugging Face Hub, pinned: a repository is resolved to a commit once, and everything is fetched by that commit.

`SAE.from_pretrained` cannot pin, and serves stale weights in silence when the Hub is down. Here the Hub is asked first,
and if it does not answer that is an error, unless the run was asked to be offline: then exactly the cached commit is
used. Every fetched file is checked against the hash that the Hub keeps of it.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from sae_checks import errors
from sae_checks.safetensors_header import HeaderError, read_shapes

Kind = Literal["model", "dataset"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
_N_TRIES = 3
_BETWEEN_TRIES_S = (1.0, 2.0)
_ANSWER_WITHIN_S = 10.0
_FETCH_WITHIN_S = 60.0
_N_BYTES_PER_S_LEAST = 100_000
"""A file may take _FETCH_WITHIN_S plus its size at this rate; a Hub slower than that is an error, not a hang."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository at its commit."""

    path: str
    n_bytes: int | None
    sha256: str | None
    """None for small files, which git keeps: their size alone is checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepo:
    """A repository at one commit."""

    repo_id: str
    kind: Kind
    commit: str
    files: tuple[HubFile, ...]
    offline: bool
    """files come from the cache alone."""

    @property
    def source(self) -> str:
        """`org/name@commit`."""
        return f"{self.repo_id}@{self.commit}"

    def file(self, path: str) -> HubFile | None:
        """The file at *path*, if the commit has it."""
        return next((file for file in self.files if file.path == path), None)


def is_repo_id(text: str) -> bool:
    """Whether *text* can be `org/name`."""
    return "/" in text and _REPO_ID.fullmatch(text) is not None


def pin(repo_id: str, *, kind: Kind = "model", revision: str | None = None, offline: bool = False) -> HubRepo:
    """
    Resolve *repo_id* at *revision* (None: main) to a commit and its files.

    Raises:
        HubError: no such repository or revision, no access, no answer within about 40 s; offline: not in the cache.
    """
    from huggingface_hub import HfApi, constants

    if offline or constants.is_offline_mode():
        return _cached(repo_id, kind, revision)
    api = HfApi()

    def ask() -> HubRepo:
        look_up = api.model_info if kind == "model" else api.dataset_info
        info = look_up(repo_id, revision=revision, files_metadata=True, timeout=_ANSWER_WITHIN_S)
        files = tuple(
            HubFile(path=s.rfilename, n_bytes=s.size, sha256=s.lfs.sha256 if s.lfs else None)
            for s in info.siblings or ()
        )
        return HubRepo(repo_id=repo_id, kind=kind, commit=str(info.sha), files=files, offline=False)

    repo = _patiently(ask, repo_id, revision)
    _remember(repo, revision)
    return repo


def fetch(repo: HubRepo, path: str) -> Path:
    """
    The file *path* of *repo* at its commit, on disk and checked.

    Raises:
        HubError: the commit has no such file, it does not arrive in time or whole, or its hash is not the Hub's.
    """
    from huggingface_hub import hf_hub_download

    known = repo.file(path)
    if known is None:
        raise errors.hub_no_file(repo.source, path)

    def download() -> Path:
        found = hf_hub_download(
            repo.repo_id,
            path,
            repo_type=repo.kind,
            revision=repo.commit,
            local_files_only=repo.offline,
            etag_timeout=_ANSWER_WITHIN_S,
        )
        return Path(found)

    limit_s = _FETCH_WITHIN_S + (known.n_bytes or 0) / _N_BYTES_PER_S_LEAST
    local = _within(limit_s, lambda: _translated(download, repo.repo_id, path), repo.source, path)
    _check_hash(repo, known, local)
    return local


def tensor_shapes(repo: HubRepo, path: str) -> dict[str, list[int]]:  # a dict: as SAE Lens's own function gives it
    """
    The shapes of the tensors in the safetensors file *path* of *repo*, without its weights.

    Raises:
        HubError: the commit has no such file, or its header does not arrive.
        HeaderError: it is no safetensors file.
    """
    local = place_of(repo, path)
    if local.is_file():
        return {tensor.name: list(tensor.shape) for tensor in read_shapes(local)}
    if repo.offline or repo.file(path) is None:
        raise errors.hub_no_file(repo.source, path)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    def ask() -> dict[str, list[int]]:
        found = HfApi().parse_safetensors_file_metadata(repo.repo_id, path, revision=repo.commit)
        return {name: list(tensor.shape) for name, tensor in found.tensors.items()}

    try:
        return _patiently(ask, repo.repo_id, repo.commit)
    except (NotASafetensorsRepoError, SafetensorsParsingError) as problem:
        raise HeaderError(str(problem)) from None


def place_of(repo: HubRepo, path: str) -> Path:
    """Where `fetch` puts the file *path* of *repo*, fetched or not."""
    return _folder(repo.repo_id, repo.kind) / "snapshots" / repo.commit / path


def fetch_folder(repo: HubRepo, keep: Callable[[str], bool]) -> Path:
    """
    Every file of *repo* that *keep* accepts; the folder they lie in.

    Raises:
        HubError: none is accepted, or `fetch` fails for one.
    """
    paths = [file.path for file in repo.files if keep(file.path)]
    if not paths:
        raise errors.hub_no_file(repo.source, "any that is needed")
    local = [fetch(repo, path) for path in paths]
    return local[0].parents[Path(paths[0]).as_posix().count("/")]


def _patiently(ask: Callable[[], T], repo_id: str, revision: str | None) -> T:
    """*ask*, again after a pause where the Hub says that it is busy or does not answer."""
    for pause_s in (*_BETWEEN_TRIES_S, None):
        try:
            return _translated(ask, repo_id, revision or "main")
        except errors.HubBusyError:
            if pause_s is None:
                raise
            time.sleep(pause_s)
    raise AssertionError  # the last pause is None


def _translated(call: Callable[[], T], repo_id: str, what: str) -> T:
    """*call*, its exceptions told in this package's words."""
    import httpx2
    from huggingface_hub import errors as hub

    try:
        return call()
    except hub.GatedRepoError:
        raise errors.hub_gated(repo_id) from None
    except hub.RepositoryNotFoundError:
        raise errors.hub_no_repo(repo_id) from None
    except hub.RevisionNotFoundError:
        raise errors.hub_no_revision(repo_id, what) from None
    except hub.RemoteEntryNotFoundError:
        raise errors.hub_no_file(repo_id, what) from None
    except hub.HfHubHTTPError as problem:
        raise errors.hub_busy(repo_id, f"HTTP {problem.response.status_code}") from None
    except (hub.LocalEntryNotFoundError, httpx2.HTTPError, OSError) as problem:
        # a refused connection, a time-out, a body cut short; LocalEntryNotFoundError is also "the network is down"
        raise errors.hub_busy(repo_id, f"{type(problem).__name__}: {problem}") from None


def _within(limit_s: float, call: Callable[[], T], source: str, path: str) -> T:
    """*call*, given up after *limit_s*: huggingface_hub retries a silent Hub for minutes."""
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as problem:  # noqa: BLE001 -- carried to the caller's thread as it is
            outcome.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise errors.hub_too_slow(source, path, limit_s)
    (found,) = outcome
    if isinstance(found, BaseException):
        raise found
    return found


def _check_hash(repo: HubRepo, known: HubFile, local: Path) -> None:
    if known.sha256 is None or repo.offline:
        return
    with local.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != known.sha256:
        local.resolve().unlink(missing_ok=True)  # the blob that the snapshot's link points to: never served again
        local.unlink(missing_ok=True)
        raise errors.hub_wrong_hash(repo.source, known.path, known.sha256, got)


def _folder(repo_id: str, kind: Kind) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=kind)


def _remember(repo: HubRepo, revision: str | None) -> None:
    """Write the commit where huggingface_hub keeps it, so that a later offline run knows what `main` was."""
    name = revision or "main"
    if _COMMIT.fullmatch(name):
        return
    ref = _folder(repo.repo_id, repo.kind) / "refs" / name
    ref.parent.mkdir(parents=True, exist_ok=True)
    part = ref.with_name(f".{ref.name}.{threading.get_ident()}.part")
    part.write_text(repo.commit)
    part.replace(ref)


def _cached(repo_id: str, kind: Kind, revision: str | None) -> HubRepo:
    """What the cache holds of *repo_id*: the commit that *revision* last was, and the files fetched of it."""
    name, folder = revision or "main", _folder(repo_id, kind)
    try:
        commit = name if _COMMIT.fullmatch(name) else (folder / "refs" / name).read_text().strip()
    except OSError:
        raise errors.hub_not_cached(repo_id, name) from None
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        raise errors.hub_not_cached(repo_id, name)
    files = tuple(
        HubFile(path=path.relative_to(snapshot).as_posix(), n_bytes=path.stat().st_size, sha256=None)
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    )
    return HubRepo(repo_id=repo_id, kind=kind, commit=commit, files=files, offline=True)
