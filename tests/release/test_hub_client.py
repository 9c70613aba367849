"""The loopback Hub, asked by plain HTTP and by the real clients: they find in it what they find in the real one."""

import hashlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import hub_server
import pytest
from hub_server import Gated, LoopbackHub, Missing, Refused, Slow, Status, Truncated, WrongContent, environment

SMALL, LARGE = b"hello\n", bytes(range(250)) * 4
GIT_BLOB_OF_SMALL = "ce013625030ba8dba906f756967f9e9ca394464a"  # echo hello | git hash-object --stdin
FILES = {"config.json": SMALL, "sae/weights.safetensors": LARGE}
CONFIG = "/org/tiny/resolve/main/config.json"
WEIGHTS = "/org/tiny/resolve/main/sae/weights.safetensors"


@pytest.fixture
def hub():
    with LoopbackHub() as running:
        running.model("org/tiny", FILES)
        yield running


def ask(hub, path, *, method="GET", timeout_s=30, **headers):
    """One request by plain HTTP: status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=timeout_s)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def asked_json(hub, path):
    return json.loads(ask(hub, path)[2])


# Plain HTTP


def test_a_small_file_has_the_name_git_has_for_it(hub):
    """Content, length, commit and the quoted Git blob as ETag."""
    status, headers, body = ask(hub, CONFIG)
    assert (status, body) == (200, SMALL)
    assert headers["ETag"] == f'"{GIT_BLOB_OF_SMALL}"'
    assert headers["Content-Length"] == str(len(SMALL))
    assert headers["X-Repo-Commit"] == hub.repos["model", "org/tiny"].sha
    assert "X-Linked-Etag" not in headers


def test_a_large_file_has_its_sha256(hub):
    """Both ETags are the sha256 of the content, and the linked size is its length."""
    _, headers, body = ask(hub, WEIGHTS)
    assert headers["ETag"] == headers["X-Linked-Etag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    assert headers["X-Linked-Size"] == headers["Content-Length"] == str(len(LARGE))


@pytest.mark.parametrize("path", [CONFIG, WEIGHTS, "/api/models/org/tiny", "/org/tiny/resolve/main/none"])
def test_head_tells_what_get_tells_without_a_body(hub, path):
    """Same status and headers, but the date."""
    status, headers, body = ask(hub, path, method="HEAD")
    of_get, headers_of_get, _ = ask(hub, path)
    del headers["Date"], headers_of_get["Date"]
    assert (status, headers.items(), body) == (of_get, headers_of_get.items(), b"")
    with socket.create_connection(("127.0.0.1", hub.port)) as raw, raw.makefile("rwb") as wire:
        wire.write(f"HEAD {path} HTTP/1.1\r\n\r\n".encode())
        wire.flush()
        assert wire.read().partition(b"\r\n\r\n")[2] == b""  # http.client would not have looked


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, LARGE[:4], "bytes 0-3/1000"),
        ("bytes=990-", 206, LARGE[990:], "bytes 990-999/1000"),
        ("bytes=-8", 206, LARGE[-8:], "bytes 992-999/1000"),
        ("bytes=900-5000", 206, LARGE[900:], "bytes 900-999/1000"),
        ("bytes=1000-", 416, b"", "bytes */1000"),
        ("bytes=0-1,5-6", 200, LARGE, None),
        ("lines=1-2", 200, LARGE, None),
    ],
)
def test_a_range_is_answered_with_that_part(hub, asked, status, body, content_range):
    """From a byte, to the end, the last so many, too far; what is not one range of bytes gets the whole."""
    got, headers, part = ask(hub, WEIGHTS, Range=asked)
    assert (got, part, headers["Content-Range"]) == (status, body, content_range)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/org/tiny/resolve/main/none", 404, "EntryNotFound"),
        ("/org/tiny/resolve/main/sae", 404, "EntryNotFound"),
        ("/org/tiny/resolve/v2/config.json", 404, "RevisionNotFound"),
        ("/org/none/resolve/main/config.json", 401, "RepoNotFound"),
        ("/datasets/org/tiny/resolve/main/config.json", 401, "RepoNotFound"),
        ("/api/models/org/none", 401, "RepoNotFound"),
        ("/api/models/org/tiny/revision/v2", 404, "RevisionNotFound"),
        ("/api/models/org/tiny/tree/main/none", 404, "EntryNotFound"),
        ("/api/models/org/tiny/tree/main/config.json", 404, "EntryNotFound"),
    ],
)
def test_what_is_not_there_is_said_with_the_hubs_code(hub, path, status, code):
    """The header from which the clients choose their exception."""
    got, headers, _ = ask(hub, path)
    assert (got, headers["X-Error-Code"]) == (status, code)


def test_a_missing_file_still_tells_the_commit(hub):
    """Clients remember by commit that a file does not exist."""
    assert ask(hub, "/org/tiny/resolve/main/none")[1]["X-Repo-Commit"] == hub.repos["model", "org/tiny"].sha


def test_the_tree_lists_files_and_folders(hub):
    """All of it, one level of it, or one folder of it."""

    def listed(path):
        return [(entry["type"], entry["path"]) for entry in asked_json(hub, path)]

    tree = "/api/models/org/tiny/tree/main"
    assert listed(tree) == [("file", "config.json"), ("directory", "sae")]
    assert listed(f"{tree}?recursive=true") == [*listed(tree), ("file", "sae/weights.safetensors")]
    assert listed(f"{tree}/sae") == [("file", "sae/weights.safetensors")]
    (entry,) = asked_json(hub, f"{tree}/sae?expand=true")
    assert entry["lfs"]["oid"] == hashlib.sha256(LARGE).hexdigest()
    assert entry["lastCommit"]["id"] == hub.repos["model", "org/tiny"].sha


def test_history_stays(hub):
    """A commit is a whole tree: the old one is still there by its sha, the new one is main."""
    repo = hub.repos["model", "org/tiny"]
    old = repo.sha
    new = repo.commit({"config.json": b"other\n"})
    assert list(repo.commits) == [old, new]
    assert ask(hub, CONFIG)[2] == b"other\n"
    assert ask(hub, CONFIG.replace("main", old))[2] == SMALL
    assert ask(hub, WEIGHTS)[0] == 404


def test_branches_are_named_as_clients_name_them(hub):
    """A branch with a slash comes quoted; it does not move main."""
    repo = hub.repos["model", "org/tiny"]
    main = repo.sha
    sha = repo.commit({"config.json": b"pr\n"}, branch="refs/pr/1")
    assert asked_json(hub, "/api/models/org/tiny/revision/refs%2Fpr%2F1")["sha"] == sha
    assert asked_json(hub, "/api/models/org/tiny")["sha"] == main


def test_commits_are_the_same_in_every_run():
    """Same files at the same place of the history: same 40 hex digits; the same files again: another commit."""
    with LoopbackHub() as one, LoopbackHub() as two:
        repos = [h.model("org/tiny", FILES) for h in (one, two)]
        first = [repo.sha for repo in repos]
        again = [repo.commit(FILES) for repo in repos]
    assert first[0] == first[1] != again[0] == again[1]
    assert len(bytes.fromhex(first[0])) == 20


def test_main_moves_while_a_client_is_at_work(hub):
    """So many requests are answered from the old commit, the next from the new one."""
    repo = hub.repos["model", "org/tiny"]
    old = repo.sha
    new = repo.commit({"config.json": b"other\n"}, after_requests=2)
    assert repo.sha == old
    assert ask(hub, f"/org/tiny/resolve/{new}/config.json")[0] == 404
    assert [ask(hub, CONFIG)[1]["X-Repo-Commit"] for _ in range(3)] == [old, new, new]


def test_a_repo_may_have_no_namespace(hub):
    """As gpt2 on the real Hub, in files and in the API."""
    repo = hub.model("gpt2", FILES)
    assert ask(hub, "/gpt2/resolve/main/sae/weights.safetensors")[2] == LARGE
    assert asked_json(hub, "/api/models/gpt2/revision/main")["sha"] == repo.sha


def test_requests_are_listed_in_order(hub):
    """Method and path with its query; what a Hub does not know at all is listed apart."""
    ask(hub, CONFIG, method="HEAD")
    ask(hub, "/api/models/org/tiny?blobs=true")
    assert ask(hub, "/api/telemetry")[0] == 501
    assert hub.requests == [("HEAD", CONFIG), ("GET", "/api/models/org/tiny?blobs=true"), ("GET", "/api/telemetry")]
    assert hub.unserved == ["GET /api/telemetry"]
    hub.forget()
    assert hub.requests == []


# Faults


def test_refused_closes_without_an_answer(hub):
    """The client hears nothing; the request is on the list."""
    hub.faults["*/config.json"] = Refused()
    with pytest.raises(http.client.RemoteDisconnected):
        ask(hub, CONFIG)
    assert hub.requests == [("GET", CONFIG)]


def test_unreachable_refuses_the_connection_itself(hub):
    """Nothing listens in the block, even if it raises; afterwards the same port answers again."""

    def ask_in_vain():
        with hub.unreachable():
            ask(hub, CONFIG)

    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            ask_in_vain()
    assert ask(hub, CONFIG)[2] == SMALL
    assert len(hub.requests) == 1


@pytest.mark.parametrize("trickle", [False, True])
def test_slow_outlasts_the_client_and_not_the_hub(hub, trickle):
    """The client gives up; a Hub that closes waits for nobody."""
    hub.faults["*"] = Slow(3600, trickle=trickle)
    with pytest.raises(TimeoutError):
        ask(hub, CONFIG, timeout_s=0.1)


def test_a_trickle_is_whole_in_the_end(hub):
    """Slowness changes no byte."""
    hub.faults["*"] = Slow(0.01, trickle=True)
    assert ask(hub, WEIGHTS)[2] == LARGE
    assert ask(hub, CONFIG)[2] == SMALL


@pytest.mark.parametrize("status", [429, 500, 503])
def test_status_comes_without_a_code(hub, status):
    """A bare status, with the headers asked for."""
    hub.faults["*"] = Status(status, {"Retry-After": "0"})
    got, headers, _ = ask(hub, CONFIG)
    assert (got, headers["Retry-After"], headers["X-Error-Code"]) == (status, "0", None)


@pytest.mark.parametrize(("fault", "status", "code"), [(Gated(), 403, "GatedRepo"), (Missing(), 404, "EntryNotFound")])
def test_a_fault_can_deny_what_is_there(hub, fault, status, code):
    """With the code of the real Hub."""
    hub.faults["*"] = fault
    got, headers, _ = ask(hub, CONFIG)
    assert (got, headers["X-Error-Code"]) == (status, code)


def test_truncated_promises_more_than_it_sends(hub):
    """Half of the body, or of the range, after the whole length."""
    hub.faults["*.safetensors"] = Truncated()
    with pytest.raises(http.client.IncompleteRead) as whole:
        ask(hub, WEIGHTS)
    with pytest.raises(http.client.IncompleteRead) as part:
        ask(hub, WEIGHTS, Range="bytes=100-199")
    assert (whole.value.partial, part.value.partial) == (LARGE[:500], LARGE[100:150])
    assert ask(hub, WEIGHTS, method="HEAD")[1]["Content-Length"] == "1000"


def test_wrong_content_looks_right(hub):
    """Length and ETag are those of the right content; one byte, the last, is not."""
    hub.faults["*.safetensors"] = WrongContent()
    _, headers, body = ask(hub, WEIGHTS)
    assert (len(body), body[:-1], headers["ETag"]) == (1000, LARGE[:-1], f'"{hashlib.sha256(LARGE).hexdigest()}"')
    assert body != LARGE
    assert ask(hub, WEIGHTS, Range="bytes=-4")[2] == body[-4:]


def test_faults_have_a_place_a_method_and_an_end(hub):
    """Other paths and methods are left alone, a fault is over after so many requests, the first pattern wins."""
    hub.faults["*/sae/*"] = Status(503, method="GET", n_most=2)
    hub.faults["*.safetensors"] = Status(500, n_most=1)
    assert ask(hub, CONFIG)[0] == 200
    assert [ask(hub, WEIGHTS)[0] for _ in range(4)] == [503, 503, 500, 200]
    hub.faults["*/sae/*"] = Status(429, method="HEAD")
    assert [ask(hub, WEIGHTS, method=m)[0] for m in ("GET", "HEAD")] == [200, 429]
    assert list(hub.faults) == ["*/sae/*", "*.safetensors"]
    hub.faults.clear()
    assert ask(hub, WEIGHTS, method="HEAD")[0] == 200


def test_a_hub_that_breaks_says_so(monkeypatch):
    """An error of the Hub itself is not one more fault for the client to survive."""

    def broken():
        with LoopbackHub() as hub:
            hub.model("org/tiny", FILES)
            with pytest.raises(http.client.RemoteDisconnected):
                ask(hub, "/api/models/org/tiny")

    monkeypatch.setattr(hub_server, "_info", None)
    with pytest.raises(RuntimeError, match="'NoneType' object is not callable"):
        broken()


def test_the_environment_forgets_every_other_setting(hub, tmp_path, monkeypatch):
    """No offline switch, token or cache of the developer reaches the subprocess; the rest does."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "1")
    named = environment(hub, tmp_path)
    assert {name for name in named if "HF" in name or "HUB" in name or "TRANSFORMERS" in name} == {
        *("HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
    }
    assert (named["HF_ENDPOINT"], named["PATH"]) == (hub.endpoint, os.environ["PATH"])
    assert "127.0.0.1" in named["NO_PROXY"]


# Real clients: each function below named client_* runs in a process of its own and prints its findings as JSON.


def told_by(client, hub, home, **extra):
    """What a function of this file finds in a process whose Hub is *hub*."""
    script = f"import json, test_hub_client as t; print(json.dumps(t.{client.__name__}()))"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=environment(hub, home) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **extra},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def raised(call):
    """What *call* raises, and what that was raised from."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - which exception it is, is the question
        return [type(error).__name__, type(error.__cause__).__name__]
    return ["nothing", "nothing"]


def client_huggingface_hub():
    from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download

    def get(name, path="config.json", **kwargs):
        return Path(hf_hub_download(f"org/{name}", path, **kwargs))

    waits = []
    time.sleep = waits.append  # retries of 1 to 8 seconds each
    api, dead = HfApi(), HfApi(endpoint=os.environ["DEAD"])
    weights = "sae/weights.safetensors"
    info = api.model_info("org/tiny", files_metadata=True)
    by_branch, by_commit, moving = get("tiny"), get("tiny", revision=os.environ["OLD"]), get("moving")
    snapshot = Path(
        snapshot_download("org/tiny", revision=info.sha, allow_patterns=["sae/*"], cache_dir=os.environ["SNAPSHOTS"])
    )
    return {
        "info": [info.sha, {s.rfilename: [s.size, s.blob_id, s.lfs and s.lfs.sha256] for s in info.siblings}],
        "dataset": api.dataset_info("org/stories", files_metadata=True).siblings[0].lfs.sha256,
        "files": api.list_repo_files("org/tiny"),
        "branches": {branch.name: branch.target_commit for branch in api.list_repo_refs("org/tiny").branches},
        "paths": [p.path for p in api.get_paths_info("org/tiny", ["sae", "none", "config.json"], expand=True)],
        "contents": [by_branch.read_text(), by_commit.read_text()],
        "commits": [by_branch.parent.name, by_commit.parent.name],
        "snapshot": [snapshot.name, [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()]],
        "part": list(HfFileSystem().cat_file(f"org/tiny/{weights}", start=100, end=105)),
        "moving": [moving.parent.name, moving.read_text(), moving.resolve().name],
        "wrong": get("wrong", weights).read_bytes() != LARGE,
        "survived": {
            "cut once": get("resumed", weights).read_bytes() == LARGE,
            "busy twice": get("busy").read_bytes() == SMALL,
            "late once": get("late", etag_timeout=0.2).read_bytes() == SMALL,
        },
        "raised": {
            "missing file": raised(lambda: get("tiny", "none.json")),
            "missing file by fault": raised(lambda: get("missing")),
            "missing repo": raised(lambda: get("none")),
            "missing repo's info": raised(lambda: api.model_info("org/none")),
            "missing revision": raised(lambda: get("tiny", revision="v2")),
            "missing revision's info": raised(lambda: api.model_info("org/tiny", revision="v2")),
            "gated": raised(lambda: get("gated")),
            "refused": raised(lambda: get("refused")),
            "refused info": raised(lambda: api.model_info("org/refused")),
            "unreachable": raised(lambda: get("none", endpoint=dead.endpoint)),
            "unreachable but cached": raised(lambda: get("tiny", endpoint=dead.endpoint)),
            "unreachable info": raised(lambda: dead.model_info("org/tiny")),
            "slow info": raised(lambda: api.model_info("org/slow", timeout=0.1)),
            **{f"{status}": raised(lambda s=status: get(f"status-{s}")) for status in (429, 500, 503)},
            "503 info": raised(lambda: api.model_info("org/status-503")),
            "503 snapshot": raised(lambda: snapshot_download("org/status-503")),
            "cut": raised(lambda: get("cut", weights)),
        },
        "waits_s": waits,
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What huggingface_hub found, and the Hub it found it in."""
    faults = {
        "wrong": WrongContent(),
        "cut": Truncated(),
        "resumed": Truncated(n_most=1),
        "busy": Status(503, n_most=2),
        "late": Slow(3600, n_most=1),
        "slow": Slow(3600),
        "missing": Missing(),
        "gated": Gated(),
        "refused": Refused(),
        **{f"status-{status}": Status(status) for status in (429, 500, 503)},
    }
    with LoopbackHub() as hub, LoopbackHub() as dead, dead.unreachable():
        tiny = hub.model("org/tiny", {"config.json": b"older\n"})
        old = tiny.sha
        tiny.commit(FILES)
        hub.dataset("org/stories", {"train.parquet": LARGE})
        hub.model("org/moving", FILES).commit({"config.json": b"moved\n"}, after_requests=1)
        for name, fault in faults.items():
            hub.model(f"org/{name}", FILES)
            hub.faults[f"*/org/{name}*"] = fault
        home = tmp_path_factory.mktemp("home")
        answers = told_by(
            client_huggingface_hub, hub, home, OLD=old, DEAD=dead.endpoint, SNAPSHOTS=str(home / "snapshots")
        )
        yield SimpleNamespace(hub=hub, old=old, **answers)


def test_model_info_tells_commit_sizes_and_hashes(told):
    """What a release is pinned by: the commit, and for large files the sha256."""
    sha256 = hashlib.sha256(LARGE).hexdigest()
    sha, siblings = told.info
    assert sha == told.hub.repos["model", "org/tiny"].sha
    assert siblings["config.json"] == [len(SMALL), GIT_BLOB_OF_SMALL, None]
    assert siblings["sae/weights.safetensors"][::2] == [len(LARGE), sha256]
    assert told.dataset == sha256


def test_clients_list_a_repo(told):
    """By names, by paths and by branches."""
    assert told.files == sorted(FILES)
    assert told.paths == ["sae", "config.json"]
    assert told.branches == {"main": told.info[0]}


def test_clients_download_by_branch_and_by_commit(told):
    """Each gets the file of its commit, filed under that commit."""
    assert told.contents == [SMALL.decode(), "older\n"]
    assert told.commits == [told.info[0], told.old]


def test_a_snapshot_holds_what_was_allowed(told):
    """Only the files that match, under the commit."""
    assert told.snapshot == [told.info[0], ["sae/weights.safetensors"]]


def test_clients_read_a_part(told):
    """HfFileSystem, on which streaming rests, asks for a range and gets it."""
    assert told.part == list(LARGE[100:105])


def test_nothing_was_asked_that_is_not_served(told):
    """The clients ask for nothing this Hub does not know, and wait only where a fault makes them."""
    assert told.hub.unserved == []
    assert sum(told.waits_s) > 10


def test_a_moving_main_mixes_commits_in_the_cache(told):
    """Why to fetch by commit: the new content lies under the old commit and the old ETag, and no one complains."""
    repo = told.hub.repos["model", "org/moving"]
    assert told.moving == [next(iter(repo.commits)), "moved\n", GIT_BLOB_OF_SMALL]


def test_wrong_content_is_taken_for_right(told):
    """Why to compute the sha256: the client compares lengths, not content."""
    assert told.wrong


def test_clients_survive_what_passes(told):
    """A download cut once goes on by range; a busy or slow Hub is asked again."""
    assert all(told.survived.values()), told.survived
    cut = [method for method, path in told.hub.requests if "/resumed/" in path]
    assert cut == ["HEAD", "GET", "GET"]


@pytest.mark.parametrize(
    ("case", "expected", "cause"),
    [
        ("missing file", "RemoteEntryNotFoundError", "HTTPStatusError"),
        ("missing file by fault", "RemoteEntryNotFoundError", "HTTPStatusError"),
        ("missing repo", "RepositoryNotFoundError", "HTTPStatusError"),
        ("missing repo's info", "RepositoryNotFoundError", "HTTPStatusError"),
        ("missing revision", "RevisionNotFoundError", "HTTPStatusError"),
        ("missing revision's info", "RevisionNotFoundError", "HTTPStatusError"),
        ("gated", "GatedRepoError", "HTTPStatusError"),
        ("refused", "RemoteProtocolError", "RemoteProtocolError"),
        ("refused info", "RemoteProtocolError", "RemoteProtocolError"),
        ("unreachable", "LocalEntryNotFoundError", "ConnectError"),
        ("unreachable but cached", "nothing", "nothing"),
        ("unreachable info", "ConnectError", "ConnectError"),
        ("slow info", "ReadTimeout", "ReadTimeout"),
        ("429", "LocalEntryNotFoundError", "HfHubHTTPError"),
        ("500", "LocalEntryNotFoundError", "HfHubHTTPError"),
        ("503", "LocalEntryNotFoundError", "HfHubHTTPError"),
        ("503 info", "HfHubHTTPError", "HTTPStatusError"),
        ("503 snapshot", "LocalEntryNotFoundError", "HfHubHTTPError"),
        ("cut", "RemoteProtocolError", "RemoteProtocolError"),
    ],
)
def test_what_goes_wrong_is_raised_as_the_client_raises_it(told, case, expected, cause):
    """The exception of each failure, and the one it was raised from."""
    assert told.raised[case] == [expected, cause]


# Model, tokenizer, SAE and corpus: bytes made here, without torch


def tiny_gpt2(d_model=8, n_vocabulary=6, n_context=16):
    """GPT-2 of one layer with a tokenizer of six words: the files of a model repo."""
    import numpy as np
    from safetensors.numpy import save

    random = np.random.default_rng(0)
    shapes = {
        "wte.weight": (n_vocabulary, d_model),
        "wpe.weight": (n_context, d_model),
        **{f"h.0.{name}.{part}": (d_model,) for name in ("ln_1", "ln_2") for part in ("weight", "bias")},
        **{f"ln_f.{part}": (d_model,) for part in ("weight", "bias")},
    }
    for name, n_in, n_out in (("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1)):
        shapes[f"h.0.{name}.weight"] = (n_in * d_model, n_out * d_model)
        shapes[f"h.0.{name}.bias"] = (n_out * d_model,)
    tensors = {f"transformer.{name}": random.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": 1,
        "n_head": 2,
        "n_embd": d_model,
        "n_ctx": n_context,
        "n_positions": n_context,
        "vocab_size": n_vocabulary,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    words = {"<|endoftext|>": 0, "[UNK]": 1, "once": 2, "upon": 3, "a": 4, "time": 5}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": "<|endoftext|>", "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        ],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }
    special = dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>")
    documents = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 0},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **special},
    }
    weights = {"model.safetensors": save(tensors, metadata={"format": "pt"})}
    return weights | {name: json.dumps(content).encode() for name, content in documents.items()}


def tiny_sae(d_in=8, d_sae=12):
    """One SAE as SAE Lens saves it: the files of its folder."""
    import numpy as np
    from safetensors.numpy import save

    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    cfg = {
        "architecture": "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.0", "model_name": "gpt2", "hook_name": "blocks.0.hook_resid_pre"},
    }
    tensors = {name: np.ones(shape, dtype="float32") for name, shape in shapes.items()}
    return {"cfg.json": json.dumps(cfg).encode(), "sae_weights.safetensors": save(tensors)}


def parquet(texts):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    written = io.BytesIO()
    write_table(pa.table({"text": texts}), written, row_group_size=10)
    return written.getvalue()


TEXTS = [f"once upon a time {i}" for i in range(30)]


def client_loaders():
    """One process for all of them: SAE Lens imports the others, and importing is what takes the time."""
    import datasets
    import transformers
    from sae_lens import SAE
    from transformer_lens import HookedTransformer

    model = transformers.AutoModelForCausalLM.from_pretrained("org/tiny")
    tokenizer = transformers.AutoTokenizer.from_pretrained("org/tiny")
    hooked = HookedTransformer.from_pretrained("gpt2", device="cpu")
    sae = SAE.from_pretrained("org/saes", "blocks.0.hook_resid_pre", device="cpu")
    streamed = datasets.load_dataset("org/stories", split="train", streaming=True)
    pinned = datasets.load_dataset("org/stories", split="train", streaming=True, revision=os.environ["OLD"])
    return {
        "wte": model.transformer.wte.weight.tolist(),
        "tokens": tokenizer("once upon a time")["input_ids"],
        "hooked": [hooked.cfg.n_layers, hooked.to_tokens("once upon")[0].tolist()],
        "sae": [sae.cfg.d_sae, sae.W_dec.sum().item()],
        "streamed": [row["text"] for row in streamed],
        "pinned": [row["text"] for row in pinned],
        "missing dataset": raised(lambda: datasets.load_dataset("org/none", streaming=True)),
        "gated dataset": raised(lambda: datasets.load_dataset("org/gated", streaming=True)),
    }


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What the loaders of models, SAEs and datasets found."""
    readme = {"README.md": b"---\nlicense: mit\n---\n"}
    with LoopbackHub() as hub:
        hub.model("org/tiny", tiny_gpt2())
        hub.model("gpt2", tiny_gpt2())
        hub.model("org/saes", {f"blocks.0.hook_resid_pre/{name}": content for name, content in tiny_sae().items()})
        stories = hub.dataset("org/stories", {**readme, "data/train-00000-of-00001.parquet": parquet(TEXTS[:3])})
        old = stories.sha
        stories.commit({**readme, "data/train-00000-of-00001.parquet": parquet(TEXTS)})
        hub.dataset("org/gated", {"train.parquet": parquet(TEXTS)})
        hub.faults["/datasets/org/gated/resolve/*"] = Gated()
        answers = told_by(client_loaders, hub, tmp_path_factory.mktemp("home"), OLD=old)
        yield SimpleNamespace(hub=hub, answers=answers)


@pytest.mark.slow
def test_transformers_loads_model_and_tokenizer(loaded):
    """The weights that were served, and the tokens of a served vocabulary."""
    from safetensors.numpy import load

    served = load(tiny_gpt2()["model.safetensors"])["transformer.wte.weight"]
    assert loaded.answers["wte"] == served.tolist()
    assert loaded.answers["tokens"] == [2, 3, 4, 5]


@pytest.mark.slow
def test_transformer_lens_loads_gpt2(loaded):
    """A one-layer stand-in under the name without a namespace."""
    assert loaded.answers["hooked"] == [1, [0, 2, 3]]


@pytest.mark.slow
def test_sae_lens_loads_an_sae(loaded):
    """Configuration and weights; the sparsity file that it looks for may be missing."""
    assert loaded.answers["sae"] == [12, 96.0]


@pytest.mark.slow
def test_datasets_streams_parquet(loaded):
    """Every row in order, of main and of a commit; what is not there or not allowed is a DatasetNotFoundError."""
    assert loaded.answers["streamed"] == TEXTS
    assert loaded.answers["pinned"] == TEXTS[:3]
    assert loaded.answers["missing dataset"][0] == "DatasetNotFoundError"
    assert loaded.answers["gated dataset"][0] == "DatasetNotFoundError"


@pytest.mark.slow
def test_loaders_ask_for_nothing_that_is_not_served(loaded):
    """A new version of a client that asks for more shows up here."""
    assert loaded.hub.unserved == []
