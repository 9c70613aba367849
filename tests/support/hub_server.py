"""
A Hugging Face Hub on 127.0.0.1: what the real clients ask for, and everything that goes wrong with it, on demand.

    with LoopbackHub() as hub:
        repo = hub.model("org/tiny", {"config.json": b"{}"})
        hub.faults["*/config.json"] = Status(503, n_most=2)
        subprocess.run(..., env=environment(hub, home=tmp_path))

Standard library only. The clients read their environment when imported: they belong into a subprocess.
Simpler than the real Hub: large files are served in place, where the Hub redirects to a CDN; no Xet; no pages.
"""

import hashlib
import json
import os
import re
import socket
import sys
import threading
import traceback
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Self

KINDS = {"models": "model", "datasets": "dataset"}
LARGE = ("*.safetensors", "*.parquet", "*.bin", "*.npz", "*.pt", "*.pth")
"""Files kept in Git LFS: known by their sha256 instead of their Git blob."""

DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class File:
    """One file of a commit, with the names that Git and Git LFS have for its content."""

    path: str
    content: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def is_large(self) -> bool:
        return any(fnmatchcase(self.path, pattern) for pattern in LARGE)

    @cached_property
    def pointer(self) -> bytes:
        """What Git itself keeps of a large file."""
        size = len(self.content)
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()

    @cached_property
    def blob(self) -> str:
        kept = self.pointer if self.is_large else self.content
        return hashlib.sha1(b"blob %d\0" % len(kept) + kept).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.blob


class Repo:
    """A model or a dataset: an ordered history of whole trees, and the branches that point into it."""

    def __init__(self, kind: str, repo_id: str) -> None:
        self.kind = kind
        self.repo_id = repo_id
        self.commits: dict[str, dict[str, File]] = {}  # by sha, oldest first
        self.branches: dict[str, str] = {}
        self._coming: list[tuple[int, str, str, dict[str, File]]] = []  # (requests left, branch, sha, tree)
        self._n_made = 0
        self._lock = threading.Lock()

    @property
    def sha(self) -> str:
        """The head of main."""
        return self.branches["main"]

    def commit(self, files: Mapping[str, bytes], *, branch: str = "main", after_requests: int = 0) -> str:
        """
        Make *files* the whole tree of *branch*.

        Args:
            files: content by path; what is not named is not in the new commit.
            branch: the branch that moves; made if there is none.
            after_requests: how many requests to this repo are still answered from the old commit.

        Returns:
            The new commit: 40 hex digits, the same for the same files at the same place in the history.
        """
        tree = {path: File(path, content) for path, content in sorted(files.items())}
        with self._lock:
            self._n_made += 1
            named = [self.kind, self.repo_id, self._n_made, [(file.path, file.sha256) for file in tree.values()]]
            sha = hashlib.sha1(json.dumps(named).encode()).hexdigest()
            if after_requests:
                self._coming.append((after_requests, branch, sha, tree))
            else:
                self._land(branch, sha, tree)
        return sha

    def seen(self) -> None:
        """Count a request; a commit whose time has come is there before it is answered."""
        with self._lock:
            waiting, self._coming = self._coming, []
            for n_left, branch, sha, tree in waiting:
                if n_left:
                    self._coming.append((n_left - 1, branch, sha, tree))
                else:
                    self._land(branch, sha, tree)

    def resolve(self, revision: str) -> str | None:
        """The commit a branch or a sha stands for, or None."""
        with self._lock:
            sha = self.branches.get(revision.removeprefix("refs/heads/"), revision)
            return sha if sha in self.commits else None

    def _land(self, branch: str, sha: str, tree: dict[str, File]) -> None:
        self.commits[sha] = tree
        self.branches[branch] = sha


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes over the wire, and how."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    silent: bool = False  # close the connection instead
    wait_s: float = 0.0  # before the first byte
    body_s: float = 0.0  # spread over the body
    kept: float = 1.0  # fraction of the body that is sent, whatever Content-Length says


class HubError(Exception):
    """A request that the Hub refuses in its own words."""

    def __init__(self, status: int, code: str, message: str, *, commit: str | None = None) -> None:
        super().__init__(message)
        of_commit = {"X-Repo-Commit": commit} if commit else {}
        self.answer = _json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message, **of_commit})


def _json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps(content, allow_nan=False).encode()
    return Answer(status=status, headers={"Content-Type": "application/json", **(headers or {})}, body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong with the requests whose path a pattern matches."""

    method: str | None = None  # only "GET", "HEAD" or "POST"
    n_most: int | None = None  # after so many requests all is well again

    def bend(self, answer: Answer) -> Answer:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Fault):
    """The connection is closed without an answer. For a port that nothing listens on see LoopbackHub.unreachable."""

    def bend(self, answer: Answer) -> Answer:
        return replace(answer, silent=True)


@dataclass(frozen=True, slots=True)
class Slow(Fault):
    """So many seconds before the answer, or spread over its body."""

    seconds: float
    trickle: bool = False

    def bend(self, answer: Answer) -> Answer:
        return replace(answer, body_s=self.seconds) if self.trickle else replace(answer, wait_s=self.seconds)


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Another status with no explanation: 429, 500, 503, ..."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def bend(self, _answer: Answer) -> Answer:
        return _json({"error": HTTPStatus(self.status).phrase}, self.status, self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated(Fault):
    """The repo is there, and not for this user."""

    def bend(self, _answer: Answer) -> Answer:
        return HubError(403, "GatedRepo", "Access to this model is restricted.").answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing(Fault):
    """The commit is there, and this file is not in it."""

    def bend(self, answer: Answer) -> Answer:
        return HubError(404, "EntryNotFound", "Entry not found", commit=answer.headers.get("X-Repo-Commit")).answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated(Fault):
    """Content-Length promises the whole body; half of it comes, then the connection closes."""

    method: str | None = "GET"

    def bend(self, answer: Answer) -> Answer:
        return replace(answer, kept=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongContent(Fault):
    """The last byte is another one: right length, right ETag, a safetensors file that still loads."""

    method: str | None = "GET"

    def bend(self, answer: Answer) -> Answer:
        return replace(answer, body=answer.body[:-1] + bytes(byte ^ 1 for byte in answer.body[-1:]))


class Faults(MutableMapping[str, Fault]):
    """Faults by pattern, such as `*/config.json` or `/api/models/org/tiny*`; the first that matches a path happens."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, Fault] = {}
        self._n_met: dict[str, int] = {}
        self._lock = threading.Lock()

    def __getitem__(self, pattern: str) -> Fault:
        return self._by_pattern[pattern]

    def __setitem__(self, pattern: str, fault: Fault) -> None:
        with self._lock:
            self._by_pattern[pattern] = fault
            self._n_met[pattern] = 0

    def __delitem__(self, pattern: str) -> None:
        with self._lock:
            del self._by_pattern[pattern]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._by_pattern))

    def __len__(self) -> int:
        return len(self._by_pattern)

    def bend(self, method: str, path: str, answer: Answer) -> Answer:
        with self._lock:
            for pattern, fault in self._by_pattern.items():
                spent = fault.n_most is not None and self._n_met[pattern] >= fault.n_most
                if not spent and fault.method in (None, method) and fnmatchcase(path, pattern):
                    self._n_met[pattern] += 1
                    return fault.bend(answer)
        return answer


class LoopbackHub:
    """A Hub that lives as long as its `with` block; repos and faults can be changed while it runs."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.faults = Faults()
        self.unserved: list[str] = []
        """What was asked for that this Hub does not know at all: a sign that a client has learnt something new."""
        self.crashes: list[str] = []
        """Tracebacks of the Hub itself; they raise when the `with` block ends."""
        self.closing = threading.Event()
        self._requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._listen(self._bound())
        return self

    def __exit__(self, exception_type: object, *_: object) -> None:
        self.closing.set()
        self._stop()
        if self.crashes and exception_type is None:
            raise RuntimeError("the loopback Hub itself failed:\n" + "\n".join(self.crashes))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Every (method, path with its query) so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    def forget(self) -> None:
        """Start a new list of requests."""
        with self._lock:
            self._requests.clear()

    def model(self, repo_id: str, files: Mapping[str, bytes]) -> Repo:
        return self._add("model", repo_id, files)

    def dataset(self, repo_id: str, files: Mapping[str, bytes]) -> Repo:
        return self._add("dataset", repo_id, files)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Nothing listens on the port inside this block: the connection itself is refused, as without a network."""
        self._stop()
        with self._bound() as placeholder:  # bound but not listening: connections are refused, and the port stays ours
            try:
                yield
            finally:
                self._listen(placeholder.dup())

    def answer(self, method: str, target: str, form: Mapping[str, list[str]]) -> Answer:
        """What the Hub says to one request, faults included."""
        path, _, query = target.partition("?")
        segments = [urllib.parse.unquote(segment) for segment in path.strip("/").split("/")]
        with self._lock:
            self._requests.append((method, target))
        try:
            answer = self._route(segments, urllib.parse.parse_qs(query), form)
        except HubError as error:
            answer = error.answer
        if answer.status == HTTPStatus.NOT_IMPLEMENTED:
            with self._lock:
                self.unserved.append(f"{method} {target}")
        return self.faults.bend(method, urllib.parse.unquote(path), answer)

    def _add(self, kind: str, repo_id: str, files: Mapping[str, bytes]) -> Repo:
        repo = Repo(kind, repo_id)
        repo.commit(files)
        self.repos[kind, repo_id] = repo
        return repo

    def _bound(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        return bound

    def _listen(self, bound: socket.socket) -> None:
        self._server = _Server(self, bound)
        # 0.02: how long stopping may take; the standard library looks twice a second.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._server = self._thread = None

    def _route(self, segments: list[str], query: Mapping[str, list[str]], form: Mapping[str, list[str]]) -> Answer:
        match segments:
            case ["api", "models" | "datasets" as kinds, *rest]:
                repo, tail = self._find(KINDS[kinds], rest)
                return _api(repo, tail, query, form)
            case ["datasets", *rest] if "resolve" in rest[1:3]:
                repo, tail = self._find("dataset", rest)
                return _file(repo, tail)
            case _ if "resolve" in segments[1:3]:
                repo, tail = self._find("model", segments)
                return _file(repo, tail)
        return _unserved()

    def _find(self, kind: str, segments: list[str]) -> tuple[Repo, list[str]]:
        """The repo that a path begins with, "org/name" before "name", and the rest of the path."""
        for n_segments in (2, 1):
            repo = self.repos.get((kind, "/".join(segments[:n_segments])))
            if repo is not None:
                repo.seen()
                return repo, segments[n_segments:]
        # 401 and not 404: the Hub does not tell strangers whether a private repo exists.
        raise HubError(401, "RepoNotFound", "Invalid username or password.")


def environment(hub: LoopbackHub, home: Path) -> dict[str, str]:
    """
    The environment of a subprocess whose Hugging Face clients know no other Hub and no other cache.

    Args:
        hub: where they go.
        home: a folder for their caches and tokens; a new one for a machine that has never seen the Hub.

    Returns:
        os.environ without any setting of those clients, among them HF_HUB_OFFLINE, and with these.
    """
    of_clients = re.compile("(HF|HUGGINGFACE|HUGGING_FACE|TRANSFORMERS|DATASETS)_")
    loopback = "127.0.0.1,localhost"
    return {name: value for name, value in os.environ.items() if not of_clients.match(name)} | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": loopback,
        "no_proxy": loopback,
    }


@contextmanager
def here(hub: LoopbackHub, cache: Path) -> Iterator[None]:
    """This process's huggingface_hub knows no other Hub than *hub* and no other cache than *cache*."""
    import pytest
    from huggingface_hub import constants
    from huggingface_hub.utils._http import close_session

    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        close_session()
        yield
        close_session()


def _tree(repo: Repo, revision: str) -> tuple[str, dict[str, File]]:
    sha = repo.resolve(revision)
    if sha is None:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return sha, repo.commits[sha]


def _unserved() -> Answer:
    return _json({"error": "not served by the loopback Hub"}, HTTPStatus.NOT_IMPLEMENTED)


def _file(repo: Repo, tail: list[str]) -> Answer:
    """The file that *tail*, `resolve/{revision}/{path}`, names."""
    if tail[:1] != ["resolve"] or len(tail) < 3:
        return _unserved()
    sha, tree = _tree(repo, tail[1])
    path = "/".join(tail[2:])
    if path not in tree:
        raise HubError(404, "EntryNotFound", "Entry not found", commit=sha)
    file = tree[path]
    headers = {
        "X-Repo-Commit": sha,
        "ETag": f'"{file.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream" if file.is_large else "text/plain; charset=utf-8",
        "Content-Disposition": f'inline; filename="{path.rpartition("/")[2]}";',
    }
    if file.is_large:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
    return Answer(headers=headers, body=file.content)


def _api(repo: Repo, tail: list[str], query: Mapping[str, list[str]], form: Mapping[str, list[str]]) -> Answer:
    match tail:
        case []:
            return _info(repo, "main", blobs=_asked("blobs", query))
        case ["revision", revision]:
            return _info(repo, revision, blobs=_asked("blobs", query))
        case ["tree", revision, *folder]:
            options = {name: _asked(name, query) for name in ("recursive", "expand")}
            return _listing(repo, revision, "/".join(folder), **options)
        case ["paths-info", revision]:
            return _paths_info(repo, revision, form.get("paths", []), expand=_asked("expand", form))
        case ["refs"]:
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": s} for n, s in repo.branches.items()]
            return _json({"branches": branches, "converts": [], "tags": []})
    return _unserved()


def _asked(name: str, query: Mapping[str, list[str]]) -> bool:
    return query.get(name, ["false"])[-1].lower() in ("true", "1")


def _info(repo: Repo, revision: str, *, blobs: bool) -> Answer:
    sha, tree = _tree(repo, revision)
    info = {
        "_id": sha[:24],
        "id": repo.repo_id,
        "author": repo.repo_id.partition("/")[0],
        "sha": sha,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "createdAt": DATE,
        "lastModified": DATE,
        "siblings": [_sibling(file, blobs=blobs) for file in tree.values()],
    }
    return _json(info | ({"modelId": repo.repo_id} if repo.kind == "model" else {}))


def _sibling(file: File, *, blobs: bool) -> dict[str, object]:
    sibling = {"rfilename": file.path}
    if not blobs:
        return sibling
    size = len(file.content)
    lfs = {"lfs": {"sha256": file.sha256, "size": size, "pointerSize": len(file.pointer)}} if file.is_large else {}
    return {**sibling, "size": size, "blobId": file.blob, **lfs}


def _listing(repo: Repo, revision: str, folder: str, *, recursive: bool, expand: bool) -> Answer:
    sha, tree = _tree(repo, revision)
    entries = {**dict.fromkeys(_folders(tree)), **tree}
    if folder and entries.get(folder, tree) is not None:
        raise HubError(404, "EntryNotFound", f"{folder} does not exist on {revision!r}", commit=sha)
    start = f"{folder}/" if folder else ""
    inside = [path for path in sorted(entries) if path.startswith(start)]
    shown = [path for path in inside if recursive or "/" not in path.removeprefix(start)]
    return _json([_entry(path, entries[path], sha, expand=expand) for path in shown])


def _paths_info(repo: Repo, revision: str, paths: list[str], *, expand: bool) -> Answer:
    sha, tree = _tree(repo, revision)
    entries = {**dict.fromkeys(_folders(tree)), **tree}
    return _json([_entry(path, entries[path], sha, expand=expand) for path in paths if path in entries])


def _folders(tree: Mapping[str, File]) -> set[str]:
    return {parent.as_posix() for path in tree for parent in PurePosixPath(path).parents if parent.name}


def _entry(path: str, file: File | None, sha: str, *, expand: bool) -> dict[str, object]:
    """One line of a tree: a file, or a folder where there is none."""
    last = {"lastCommit": {"id": sha, "title": "loopback", "date": DATE}} if expand else {}
    if file is None:
        return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path, **last}
    size = len(file.content)
    lfs = {"lfs": {"oid": file.sha256, "size": size, "pointerSize": len(file.pointer)}} if file.is_large else {}
    return {"type": "file", "oid": file.blob, "size": size, "path": path, **lfs, **last}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # snapshot_download asks eight times at once, data loaders more

    def __init__(self, hub: LoopbackHub, bound: socket.socket) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.server_activate()
        self.hub = hub

    def handle_error(self, *_: object) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # clients may hang up whenever they like
            self.hub.crashes.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        answer = hub.answer(self.command, self.path, urllib.parse.parse_qs(form))
        hub.closing.wait(answer.wait_s)
        if answer.silent:
            self.close_connection = True
            return
        if self.command == "GET" and "Accept-Ranges" in answer.headers:
            answer = _ranged(answer, self.headers.get("Range", ""))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")  # no client keeps a connection that a fault then surprises
        self.end_headers()
        if self.command != "HEAD":
            _send(answer, self.wfile.write, hub.closing.wait)

    do_HEAD = do_POST = do_GET  # noqa: N815 - http.server looks for these names

    def log_message(self, *_: object) -> None:
        pass


def _ranged(answer: Answer, asked: str) -> Answer:
    """The part of a body that a Range header asks for; several ranges at once are answered with the whole."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.strip())
    if match is None or match[0] == "bytes=-":
        return answer
    size = len(answer.body)
    first = int(match[1]) if match[1] else max(size - int(match[2]), 0)
    last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
    if first > last:
        return Answer(status=416, headers={**answer.headers, "Content-Range": f"bytes */{size}"})
    headers = {**answer.headers, "Content-Range": f"bytes {first}-{last}/{size}"}
    return replace(answer, status=206, headers=headers, body=answer.body[first : last + 1])


def _send(answer: Answer, write: Callable[[bytes], object], wait: Callable[[float], object]) -> None:
    body = answer.body[: int(len(answer.body) * answer.kept)]
    if not answer.body_s:
        write(body)
        return
    n_bytes = -(-len(body) // 10) or 1
    for start in range(0, len(body), n_bytes):
        wait(answer.body_s / 10)
        write(body[start : start + n_bytes])
