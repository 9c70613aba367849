"""
The Hugging Face Hub, pinned: a repository is resolved to a commit once, and everything is fetched by that commit.

`SAE.from_pretrained` cannot pin, and serves stale weights in silence when the Hub is down. Here the Hub is asked first,
and if it does not answer that is an error, unless the run was asked to be offline: then exactly the cached commit is
used. Every file is checked against the hash that the Hub keeps of it, and offline against its name in the cache, which
is that hash.

What it may take: a question 40 s with its repetitions (`retries`), a file then a minute and its size at 100 kB/s.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sae_checks import errors
from sae_checks.release import retries
from sae_checks.release.safetensors_header import HeaderError, read_shapes

Kind = Literal["model", "dataset"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"(?!.*(--|\.\.))\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FETCH_WITHIN_S = 60.0
_N_BYTES_PER_S_LEAST = 100_000
"""A file may take _FETCH_WITHIN_S plus its size at this rate; a Hub slower than that is an error, not a hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository at its commit."""

    path: str
    n_bytes: int | None
    blob: str | None
    """its hash, and its name in the cache: sha256 of a large file, Git's own (SHA-1) of a small one; None: not told."""


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
        wanted = str(PurePosixPath(path))
        return next((file for file in self.files if file.path == wanted), None)


def is_repo_id(text: str) -> bool:
    """Whether *text* can be `org/name`."""
    return _REPO_ID.fullmatch(text) is not None


def is_offline(*, asked: bool) -> bool:
    """Whether the Hub is left alone: *asked* for (--sae-offline), or set for all its clients (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return asked or constants.is_offline_mode()


def pin(repo_id: str, *, kind: Kind = "model", revision: str | None = None, offline: bool = False) -> HubRepo:
    """
    Resolve *repo_id* at *revision* (None: main) to a commit and its files.

    Raises:
        HubNameError: no such repository or revision.
        HubError: no access, no answer in time; offline: not in the cache.
    """
    from huggingface_hub import HfApi

    if is_offline(asked=offline):
        return _cached(repo_id, kind, revision)
    api = HfApi()

    def ask() -> HubRepo:
        look_up = api.model_info if kind == "model" else api.dataset_info
        info = look_up(repo_id, revision=revision, files_metadata=True, timeout=retries.ANSWER_WITHIN_S)
        if _COMMIT.fullmatch(str(info.sha)) is None:
            raise errors.hub_busy(repo_id, f"a commit called {info.sha!r}")
        files = tuple(
            HubFile(path=s.rfilename, n_bytes=s.size, blob=s.lfs.sha256 if s.lfs else s.blob_id)
            for s in info.siblings or ()
        )
        return HubRepo(repo_id=repo_id, kind=kind, commit=str(info.sha), files=files, offline=False)

    repo = retries.patiently(ask, repo_id, revision or "main")
    _remember(repo, revision)
    return repo


def fetch(repo: HubRepo, path: str, *, n_bytes_most: int | None = None) -> Path:
    """
    The file *path* of *repo* at its commit, on disk and checked.

    Raises:
        HubError: the commit has no such file, it has more than *n_bytes_most*, its path leads out of the repository, it
            does not arrive in time or whole, or its hash is not the Hub's.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    known = repo.file(path)
    if known is None:
        raise errors.hub_not_cached(repo.source, path) if repo.offline else errors.hub_no_file(repo.source, path)
    if ".." in known.path.split("/") or "\0" in known.path or PurePosixPath(known.path).is_absolute():
        raise errors.hub_unsafe_path(repo.source, known.path)
    if n_bytes_most is not None and (known.n_bytes or 0) > n_bytes_most:
        raise errors.hub_too_large(repo.source, known.path, known.n_bytes or 0, n_bytes_most)
    if not repo.offline and not place_of(repo, known.path).exists():
        # hf_hub_download would try for half a minute and then not say what the Hub answered
        url = hf_hub_url(repo.repo_id, known.path, repo_type=repo.kind, revision=repo.commit)
        retries.patiently(
            lambda: get_hf_file_metadata(url, timeout=retries.ANSWER_WITHIN_S), repo.repo_id, repo.commit, known.path
        )

    def download(progress: type[Any]) -> Path:
        found = hf_hub_download(
            repo.repo_id,
            known.path,
            repo_type=repo.kind,
            revision=repo.commit,
            local_files_only=repo.offline,
            etag_timeout=retries.ANSWER_WITHIN_S,
            tqdm_class=progress,
        )
        return Path(found)

    local = _in_time(download, repo, known)
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
        raise errors.hub_not_cached(repo.source, path) if repo.offline else errors.hub_no_file(repo.source, path)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    def ask() -> dict[str, list[int]]:
        found = HfApi().parse_safetensors_file_metadata(repo.repo_id, path, revision=repo.commit)
        return {str(name): list(tensor.shape) for name, tensor in found.tensors.items()}

    try:
        return retries.patiently(ask, repo.repo_id, repo.commit, path)
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


def _in_time(download: Callable[[type[Any]], Path], repo: HubRepo, file: HubFile) -> Path:
    """*download*, given up after its time with nothing left of it: huggingface_hub retries a silent Hub for minutes."""
    limit_s = _FETCH_WITHIN_S + (file.n_bytes or 0) / _N_BYTES_PER_S_LEAST
    given_up, others = threading.Event(), _parts(repo, file)
    progress = _watched(given_up)
    try:
        return retries.in_time(
            lambda: retries.translated(lambda: download(progress), repo.repo_id, repo.commit, file.path), limit_s
        )
    except TimeoutError:
        given_up.set()
        for part in _parts(repo, file) - others:  # the thread does so itself, if the process lives long enough
            part.unlink(missing_ok=True)
        raise errors.hub_too_slow(repo.source, file.path, limit_s) from None


def _parts(repo: HubRepo, file: HubFile) -> set[Path]:
    """What lies in the cache of downloads of *file* that are under way; another process's among them."""
    return set((_folder(repo.repo_id, repo.kind) / "blobs").glob(f"{file.blob}.*.incomplete"))


def _watched(given_up: threading.Event) -> type[Any]:
    """A progress bar, all that huggingface_hub asks during a download: it ends one that nobody waits for any more."""
    from huggingface_hub.utils.tqdm import tqdm

    class Watched(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._stop()
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # tqdm has no types

        def update(self, n: float | None = 1) -> Any:
            self._stop()
            return super().update(n)

        def _stop(self) -> None:
            if given_up.is_set():
                raise InterruptedError

    return Watched


def _check_hash(repo: HubRepo, known: HubFile, local: Path) -> None:
    if known.blob is None:
        return
    got = _hash_of(local, is_large=len(known.blob) == 64)
    if got != known.blob:
        local.resolve().unlink(missing_ok=True)  # the blob that the snapshot's link points to: never served again
        local.unlink(missing_ok=True)
        raise errors.hub_wrong_hash(repo.source, known.path, known.blob, got)


def _hash_of(path: Path, *, is_large: bool) -> str:
    """What Git LFS calls a large file, and Git a small one."""
    with path.open("rb") as file:
        if is_large:
            return hashlib.file_digest(file, "sha256").hexdigest()
        content = file.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


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
        HubFile(
            path=path.relative_to(snapshot).as_posix(),
            n_bytes=path.stat().st_size,
            blob=name if _HASH.fullmatch(name := path.resolve().name) else None,
        )
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    )
    return HubRepo(repo_id=repo_id, kind=kind, commit=commit, files=files, offline=True)
