"""What the real client of the Hub finds and raises, on the loopback Hub that the other tests use in its place."""

import hashlib
import http.client
import json
import os
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


@pytest.fixture
def hub():
    with LoopbackHub() as running:
        running.model("org/tiny", FILES)
        yield running


def ask(hub, path):
    """Send one request by plain HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    finally:
        connection.close()


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


RAISED = {
    "missing file": ["RemoteEntryNotFoundError", "HTTPStatusError"],
    "missing file by fault": ["RemoteEntryNotFoundError", "HTTPStatusError"],
    "missing repo": ["RepositoryNotFoundError", "HTTPStatusError"],
    "missing repo's info": ["RepositoryNotFoundError", "HTTPStatusError"],
    "missing revision": ["RevisionNotFoundError", "HTTPStatusError"],
    "missing revision's info": ["RevisionNotFoundError", "HTTPStatusError"],
    "gated": ["GatedRepoError", "HTTPStatusError"],
    "refused": ["RemoteProtocolError", "RemoteProtocolError"],
    "refused info": ["RemoteProtocolError", "RemoteProtocolError"],
    "unreachable": ["LocalEntryNotFoundError", "ConnectError"],
    "unreachable but cached": ["nothing", "nothing"],
    "unreachable info": ["ConnectError", "ConnectError"],
    "slow info": ["ReadTimeout", "ReadTimeout"],
    "429": ["LocalEntryNotFoundError", "HfHubHTTPError"],
    "500": ["LocalEntryNotFoundError", "HfHubHTTPError"],
    "503": ["LocalEntryNotFoundError", "HfHubHTTPError"],
    "503 info": ["HfHubHTTPError", "HTTPStatusError"],
    "503 snapshot": ["LocalEntryNotFoundError", "HfHubHTTPError"],
    "cut": ["RemoteProtocolError", "RemoteProtocolError"],
}
"""The exception of each failure, and the one it was raised from."""


def test_what_goes_wrong_is_raised_as_the_client_raises_it(told):
    """The gate tells one failure from another by these exceptions."""
    assert told.raised == RAISED
