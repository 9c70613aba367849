"""
A client of the Hugging Face Hub that resolves a repository to a commit once and fetches every file by that commit.

`SAE.from_pretrained` cannot pin a commit, and silently serves stale weights when the Hub is down. Here an unreachable
Hub is an error, unless the run is offline: then the cached commit is used. Every file is checked against the hash that
the Hub states; offline, against its name in the cache, which is that hash.

A request takes at most 40 s with its retries (`retries`), a download a minute plus its size at 100 kB/s.
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

RepoKind = Literal["model", "dataset"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"(?!.*(--|\.\.))\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FETCH_TIMEOUT_S = 60.0
_MIN_BYTES_PER_S = 100_000
"""A download may take _FETCH_TIMEOUT_S plus its size at this rate; then it fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository at a commit."""

    path: str
    n_bytes: int | None
    blob: str | None
    """its hash, which is its name in the cache: sha256 for a large file, Git's SHA-1 for a small one; None: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepo:
    """A repository at one commit."""

    repo_id: str
    kind: RepoKind
    commit: str
    files: tuple[HubFile, ...]
    offline: bool
    """files are taken from the cache alone."""

    @property
    def source(self) -> str:
        """`org/name@commit`."""
        return f"{self.repo_id}@{self.commit}"

    def file(self, path: str) -> HubFile | None:
        """The file at *path*; None if the commit has none there."""
        wanted = str(PurePosixPath(path))
        return next((file for file in self.files if file.path == wanted), None)


def is_repo_id(text: str) -> bool:
    """Whether *text* has the form `org/name`."""
    return _REPO_ID.fullmatch(text) is not None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE keeps all clients from the Hub."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def pin(repo_id: str, *, kind: RepoKind = "model", revision: str | None = None) -> HubRepo:
    """
    Resolve *repo_id* at *revision* (None: main) to a commit and its files.

    Raises:
        HubError: there is no such repository or revision, access is denied, or the Hub does not answer in time;
            offline: the revision is not in the cache.
    """
    from huggingface_hub import HfApi

    if is_offline():
        return _pin_in_cache(repo_id, kind, revision)
    api = HfApi()

    def request() -> HubRepo:
        look_up = api.model_info if kind == "model" else api.dataset_info
        info = look_up(repo_id, revision=revision, files_metadata=True, timeout=retries.ANSWER_TIMEOUT_S)
        if _COMMIT.fullmatch(str(info.sha)) is None:
            raise errors.hub_busy(repo_id, f"a commit called {info.sha!r}")
        files = tuple(
            HubFile(path=s.rfilename, n_bytes=s.size, blob=s.lfs.sha256 if s.lfs else s.blob_id)
            for s in info.siblings or ()
        )
        return HubRepo(repo_id=repo_id, kind=kind, commit=str(info.sha), files=files, offline=False)

    repo = retries.with_retries(request, repo_id, revision or "main")
    _write_ref(repo, revision)
    return repo


def fetch(repo: HubRepo, path: str, *, max_bytes: int | None = None) -> Path:
    """
    Fetch the file *path* of *repo* at its commit, unless it is cached, and check its hash.

    Returns:
        The file's path on disk.

    Raises:
        HubError: the commit has no such file, the file has more than *max_bytes*, its path leads out of the repository,
            its download fails or is too slow, or its hash is wrong.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    file = _safe_file(repo, path, max_bytes)
    if not repo.offline and not cached_path(repo, file.path).exists():
        # WHY: hf_hub_download alone would retry for half a minute and hide the Hub's answer
        url = hf_hub_url(repo.repo_id, file.path, repo_type=repo.kind, revision=repo.commit)
        retries.with_retries(
            lambda: get_hf_file_metadata(url, timeout=retries.ANSWER_TIMEOUT_S), repo.repo_id, repo.commit, file.path
        )

    def download(progress: type[Any]) -> Path:
        local = hf_hub_download(
            repo.repo_id,
            file.path,
            repo_type=repo.kind,
            revision=repo.commit,
            local_files_only=repo.offline,
            etag_timeout=retries.ANSWER_TIMEOUT_S,
            tqdm_class=progress,
        )
        return Path(local)

    local = _download_in_time(download, repo, file)
    _check_hash(repo, file, local)
    return local


def _safe_file(repo: HubRepo, path: str, max_bytes: int | None) -> HubFile:
    """The file *path* of *repo*, if it exists, stays within the repository and is not too large."""
    file = repo.file(path)
    if file is None:
        raise errors.hub_not_cached(repo.source, path) if repo.offline else errors.hub_no_file(repo.source, path)
    if ".." in file.path.split("/") or "\0" in file.path or PurePosixPath(file.path).is_absolute():
        raise errors.hub_unsafe_path(repo.source, file.path)
    if max_bytes is not None and (file.n_bytes or 0) > max_bytes:
        raise errors.hub_too_large(repo.source, file.path, file.n_bytes or 0, max_bytes)
    return file


def tensor_shapes(repo: HubRepo, path: str) -> dict[str, list[int]]:  # a dict: SAE Lens's function returns one
    """
    Shapes by name of the tensors in the safetensors file *path* of *repo*, read from its header.

    Raises:
        HubError: the commit has no such file, or the header cannot be fetched.
        HeaderError: it is no safetensors file.
    """
    local = cached_path(repo, path)
    if local.is_file():
        return {tensor.name: list(tensor.shape) for tensor in read_shapes(local)}
    if repo.offline or repo.file(path) is None:
        raise errors.hub_not_cached(repo.source, path) if repo.offline else errors.hub_no_file(repo.source, path)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    def request() -> dict[str, list[int]]:
        metadata = HfApi().parse_safetensors_file_metadata(repo.repo_id, path, revision=repo.commit)
        return {str(name): list(tensor.shape) for name, tensor in metadata.tensors.items()}

    try:
        return retries.with_retries(request, repo.repo_id, repo.commit, path)
    except (NotASafetensorsRepoError, SafetensorsParsingError) as problem:
        raise HeaderError(str(problem)) from None


def cached_path(repo: HubRepo, path: str) -> Path:
    """Path in the cache of the file *path* of *repo*, whether it is fetched or not."""
    return _folder(repo.repo_id, repo.kind) / "snapshots" / repo.commit / path


def fetch_folder(repo: HubRepo, is_needed: Callable[[str], bool]) -> Path:
    """
    Fetch every file of *repo* whose path *is_needed*.

    Returns:
        The folder on disk that stands for the repository's top folder.

    Raises:
        HubError: no file is needed, or `fetch` fails for one.
    """
    paths = [file.path for file in repo.files if is_needed(file.path)]
    if not paths:
        raise errors.hub_no_file(repo.source, "any that is needed")
    local = [fetch(repo, path) for path in paths]
    return local[0].parents[Path(paths[0]).as_posix().count("/")]


def _download_in_time(download: Callable[[type[Any]], Path], repo: HubRepo, file: HubFile) -> Path:
    """
    Run *download*, and after its time limit cancel it and delete its partial file.

    WHY: huggingface_hub by itself retries a silent Hub for minutes.
    """
    limit_s = _FETCH_TIMEOUT_S + (file.n_bytes or 0) / _MIN_BYTES_PER_S
    is_cancelled, others = threading.Event(), _partial_files(repo, file)
    progress = retries.cancelling_bar(is_cancelled)
    try:
        return retries.within(
            lambda: retries.with_our_errors(lambda: download(progress), repo.repo_id, repo.commit, file.path), limit_s
        )
    except TimeoutError:
        is_cancelled.set()
        for part in _partial_files(repo, file) - others:  # the thread deletes it, too, if the process lives long enough
            part.unlink(missing_ok=True)
        raise errors.hub_too_slow(repo.source, file.path, limit_s) from None


def _partial_files(repo: HubRepo, file: HubFile) -> set[Path]:
    """Partial downloads of *file* in the cache, also those of other processes."""
    return set((_folder(repo.repo_id, repo.kind) / "blobs").glob(f"{file.blob}.*.incomplete"))


def _check_hash(repo: HubRepo, file: HubFile, local: Path) -> None:
    if file.blob is None:
        return
    got = _hash_of(local, is_large=len(file.blob) == 64)
    if got != file.blob:
        local.resolve().unlink(missing_ok=True)  # WHY: the snapshot links to this blob, which must not be served again
        local.unlink(missing_ok=True)
        raise errors.hub_wrong_hash(repo.source, file.path, file.blob, got)


def _hash_of(path: Path, *, is_large: bool) -> str:
    """Git LFS's sha256 of a large file, Git's SHA-1 of a small one."""
    with path.open("rb") as file:
        if is_large:
            return hashlib.file_digest(file, "sha256").hexdigest()
        content = file.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _folder(repo_id: str, kind: RepoKind) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=kind)


def _write_ref(repo: HubRepo, revision: str | None) -> None:
    """Write the commit of *revision* into huggingface_hub's cache, so that a later offline run finds it."""
    name = revision or "main"
    if _COMMIT.fullmatch(name):
        return
    ref = _folder(repo.repo_id, repo.kind) / "refs" / name
    ref.parent.mkdir(parents=True, exist_ok=True)
    part = ref.with_name(f".{ref.name}.{threading.get_ident()}.part")
    part.write_text(repo.commit)
    part.replace(ref)


def _pin_in_cache(repo_id: str, kind: RepoKind, revision: str | None) -> HubRepo:
    """*repo_id* at the commit that *revision* had when it was last pinned, with the files that are cached."""
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
