"""The Hub's faults in the gate: errors with their reason within their time, the other SAEs judged, the cache whole."""

import json
from pathlib import Path

import pytest
import stand_in
import stand_in_converted
from hub_server import Gated, LoopbackHub, Missing, Refused, Slow, Status, Truncated, WrongContent
from tiny_release import HOOKS, N_CHECKS, cfg_of, identity_weights

from sae_checks.release import hub as client
from sae_checks.release import retries

pytest_plugins = ["pytester"]

SAES, MODEL = "org/saes", "org/model"


def files_in(folder, below=""):
    return {below + p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    """A Hub with the tiny model, and this process's clients turned to it, with an empty cache and little patience."""
    import huggingface_hub
    from huggingface_hub import constants

    with LoopbackHub() as running:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        url = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(retries, "PAUSES_S", (0.05, 0.05))
        monkeypatch.setattr(retries, "ANSWER_TIMEOUT_S", 0.5)
        monkeypatch.setattr(retries, "RETRY_BUDGET_S", 2.0)
        monkeypatch.setattr(client, "_FETCH_TIMEOUT_S", 1.5)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        huggingface_hub.close_session()  # the next one reads that
        running.model(MODEL, files_in(tiny.model))
        yield running
        huggingface_hub.close_session()


@pytest.fixture
def judge(gate, tiny, hub):
    """The gate on a repository of the Hub."""

    def run(*more, release=SAES, model=MODEL, without=()):
        given = {"corpus": tiny.corpus, "lambada": tiny.lambada, "cbt": tiny.cbt}
        texts = [f"--sae-{name}={path}" for name, path in given.items() if name not in without]
        asked = [f"--sae-release={release}", f"--sae-model={model}", *texts, "--sae-study-sequences=0"]
        return gate(*more, options=asked)

    return run


def saes(*names, hook=HOOKS[1], **metadata):
    """The files of identity SAEs in folders of these names; no two of them are the same."""
    from safetensors.torch import save

    files = {}
    for name in names:
        files[f"{name}/cfg.json"] = json.dumps(cfg_of(hook, note=name, **metadata)).encode()
        files[f"{name}/sae_weights.safetensors"] = save(identity_weights(), metadata={"note": name})
    return files


def not_whole(home):
    """Files of the cache's blobs that are not what their name says: parts of downloads are among them."""
    blobs = home.glob("hub/*/blobs/*")
    return [b.name for b in blobs if client._hash_of(b, is_large=len(b.name) == 64) != b.name]


def reasons(run):
    """The first line of each reason by SAE, from the record; JUnit has the same in an <error>."""
    found = {}
    for (sae_id, check), result in run.results.items():
        if result.outcome == "error":
            found[sae_id] = result.reason.partition("\n")[0]
            (error,) = run.junit[sae_id, check].iterfind("error")
            assert found[sae_id] in error.text
    assert not [case for case in run.junit.values() if case.find("failure") is not None]
    return found


FAULTS = {
    # SAE, the file of it that is hit, the fault, what is said
    "refused": ("sae_weights.safetensors", Refused(), "the Hub does not answer for org/saes"),
    "silent": ("sae_weights.safetensors", Slow(60), "the Hub does not answer for org/saes"),
    "trickle": (
        "sae_weights.safetensors",
        Slow(60, trickle=True),
        "trickle/sae_weights.safetensors of org/saes@{} did",
    ),
    "late": (
        "sae_weights.safetensors",
        Slow(60, method="GET"),
        "late/sae_weights.safetensors of org/saes@{} did not a",
    ),
    "busy": ("sae_weights.safetensors", Status(429, {"Retry-After": "60"}), "the Hub does not answer for org/saes"),
    "broken": ("sae_weights.safetensors", Status(500), "the Hub does not answer for org/saes"),
    "gated": ("sae_weights.safetensors", Gated(), "the repository org/saes is gated"),
    "missing": ("sae_weights.safetensors", Missing(), "org/saes@{} has no file missing/sae_weights.safetensors"),
    "short": ("sae_weights.safetensors", Truncated(), "short/sae_weights.safetensors of org/saes@{} did not arrive"),
    "wrong": (
        "sae_weights.safetensors",
        WrongContent(),
        "wrong/sae_weights.safetensors of org/saes@{} does not have the hash",
    ),
    "wrong-cfg": ("cfg.json", WrongContent(), "wrong-cfg/cfg.json of org/saes@{} does not have the hash"),
    "no-cfg": ("cfg.json", Missing(), "org/saes@{} has no file no-cfg/cfg.json"),
}


def test_each_fault_is_an_error_and_the_others_are_judged(judge, hub, tmp_path):
    """One run, twelve faults of twelve SAEs: each says what happened, two SAEs pass, no part of a file stays."""
    repo = hub.model(SAES, saes("good", "soon", *FAULTS))
    for name, (file, fault, _) in FAULTS.items():
        hub.faults[f"*/{name}/{file}"] = fault
    hub.faults["*/soon/sae_weights.safetensors"] = Status(429, {"Retry-After": "1"}, n_most=1)
    run = judge("-k", "ce_loss")
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED
    said = reasons(run)
    assert said.keys() == FAULTS.keys(), run.text
    for name, (_, _, what) in FAULTS.items():
        assert said[name].startswith(what.format(repo.sha)), said[name]
    assert {run.outcomes["good", "ce_loss"], run.outcomes["soon", "ce_loss"]} == {"passed"}
    assert "HTTP 429 Too Many Requests, wait 60 s" in run.text
    assert "HTTP 500 Internal Server Error" in run.text
    assert not_whole(tmp_path / "home") == []


def test_what_is_not_there_is_a_usage_error(judge, hub):
    """An unknown repository and an unknown revision: exit code 4 and no record."""
    hub.model(SAES, saes("a"))
    for name, message in (("nobody/saes", "has no repository"), (f"{SAES}@v9", "has no revision 'v9'")):
        run = judge(release=name)
        assert run.exit_code == pytest.ExitCode.USAGE_ERROR
        assert message in run.text
        assert not run.record_path.exists()


def test_a_release_that_sae_lens_converts(judge, hub, tmp_path):
    """All heads of one layer, from a pickle that was asked for: judged, with commit and hashes in the record."""
    family = next(f for f in stand_in_converted.FAMILIES if f.conversion == "connor_rob_hook_z")
    hub.model("org/gpt2", stand_in.model_files(tmp_path / "gpt2"))  # as wide as the family's SAEs
    repo = hub.model(family.repo_id, dict(family.files()))
    asked = (f"--sae-id={family.sae_id}", "-k", "ce_loss or sparsity", "--sae-allow-pickle")
    run = judge(*asked, release=family.release, model="org/gpt2")
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED, run.text
    assert run.outcomes[family.sae_id, "sparsity"] == "failed", run.text  # its numbers are random
    assert run.record.release.revision == repo.sha
    (facts,) = {r.provenance.sae for r in run.record.results if r.provenance}
    at_commit = repo.commits[repo.sha]
    assert {file.name: file.sha256 for file in facts.weights} == {
        path: at_commit[path].sha256 for path in family.files()
    }


def test_main_that_moves_is_not_followed(judge, hub):
    """The commit that main was at first is the one that is fetched, judged and recorded."""
    old = hub.model(SAES, saes("a", "b"))
    pinned = old.sha
    moved = old.commit(saes("a", "b", hook=HOOKS[0]), after_requests=2)
    run = judge("-k", "ce_loss")
    assert run.exit_code == pytest.ExitCode.OK, run.text
    assert old.sha == moved  # it did move
    assert run.record.release.revision == pinned
    assert {r.provenance.sae.hook for r in run.record.results if r.provenance} == {HOOKS[1]}
    fetched = [path for _, path in hub.requests if "/resolve/" in path]
    assert fetched
    assert not [path for path in fetched if moved in path or "/main/" in path]


def test_offline_uses_the_cached_commit_and_says_which(judge, hub, monkeypatch):
    """Offline the cached commit is judged without a request, although main has moved; without one it fails."""
    from huggingface_hub import constants

    repo = hub.model(SAES, saes("a"))
    pinned = repo.sha
    assert judge("-k", "ce_loss").exit_code == pytest.ExitCode.OK
    repo.commit(saes("b"))
    hub.forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    run = judge("-k", "ce_loss")
    assert run.exit_code == pytest.ExitCode.OK, run.text
    assert f"SAEs {SAES}@{pinned} (offline, from the cache)" in run.text
    assert run.record.release.revision == pinned
    assert run.record.release.sae_ids == ("a",)
    unknown = judge(release=f"{SAES}@v9")
    assert unknown.exit_code == pytest.ExitCode.USAGE_ERROR
    assert f"offline, and {SAES} at 'v9' is not in the cache" in unknown.text
    assert hub.requests == []


def test_what_spoils_in_the_cache_is_seen_offline(judge, hub, tmp_path, monkeypatch):
    """A blob that is not what its name says is refused and removed, though nothing can tell but its name."""
    from huggingface_hub import constants

    hub.model(SAES, saes("a", "b"))
    assert judge("-k", "ce_loss").exit_code == pytest.ExitCode.OK
    (spoilt,) = tmp_path.rglob("snapshots/*/a/sae_weights.safetensors")
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"\1")
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        run = judge("-k", "ce_loss")
    assert "does not have the hash that the Hub lists" in reasons(run)["a"]
    assert run.outcomes["b", "ce_loss"] == "passed"
    assert not spoilt.exists()
    assert judge("-k", "ce_loss").exit_code == pytest.ExitCode.OK


def n_asked(hub, repo):
    return sum(f"datasets/{repo}" in path for _, path in hub.requests)


TEXTS = {
    "corpus": ("Skylion007/openwebtext", {"ce_loss", "long_context", "usable_context", "sparsity"}),
    "lambada": ("EleutherAI/lambada_openai", {"lambada"}),
    "cbt": ("cam-cst/cbt", {"cbt"}),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("fault", [Status(404), Status(401), Status(403), Status(429), Status(500)], ids=str)
def test_a_missing_default_text_is_an_error_of_its_own_checks(judge, hub, kind, fault):
    """Red, with the Hub's reason and what to type; every other check is judged. Not selected, it is not asked for."""
    repo, needing = TEXTS[kind]
    hub.model(SAES, saes("a"))
    hub.faults[f"/api/datasets/{repo}*"] = fault
    run = judge(without=(kind,))
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED, run.text
    by_outcome = {
        outcome: {check for (_, check), o in run.outcomes.items() if o == outcome} for outcome in ("error", "passed")
    }
    assert by_outcome["error"] == needing
    assert by_outcome["passed"] == {check for _, checks in TEXTS.values() for check in checks} - needing
    assert reasons(run)["a"].startswith("the text of this check is missing: ")
    assert f"  try:      --sae-{kind}=FILE" in run.text
    hub.forget()
    others = judge("-k", "lambada" if kind == "corpus" else "ce_loss", without=(kind,))
    assert others.exit_code == pytest.ExitCode.OK, others.text
    assert n_asked(hub, repo) == 0


def test_a_text_that_was_asked_for_and_is_not_there_is_a_usage_error(judge, hub):
    """A name that is wrong ends the run at once; a Hub that is busy costs its checks alone; unselected, nobody asks."""
    hub.model(SAES, saes("a"))
    asked = "--sae-lambada=org/none"
    run = judge(asked, without=("lambada",))
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "has no repository org/none" in run.text
    assert not run.record_path.exists()
    assert judge(asked, "-k", "ce_loss", without=("lambada",)).exit_code == pytest.ExitCode.OK
    hub.faults["/api/datasets/org/none*"] = Status(503)
    run = judge(asked, without=("lambada",))
    assert (run.outcomes["a", "lambada"], run.outcomes["a", "ce_loss"]) == ("error", "passed")
    chosen = "model: --sae-model; text: --sae-corpus; Lambada: --sae-lambada; "
    assert f"sae-checks: chosen: {chosen}" in run.text
    assert dict(run.record.options)["chosen"].startswith(chosen)
    assert chosen in run.record_path.with_name("report").joinpath("index.html").read_text()


def test_workers_are_told_of_a_missing_text(judge, hub):
    """The controller has asked once for all of them."""
    hub.model(SAES, saes("a", "b"))
    run = judge("-n2", "-k", "lambada or sparsity", without=("lambada",))
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED
    assert {outcome for (_, check), outcome in run.outcomes.items() if check == "lambada"} == {"error"}
    assert n_asked(hub, TEXTS["lambada"][0]) == 1


@pytest.mark.parametrize(
    ("repo", "fault", "said"),
    [
        (SAES, Refused(), "the Hub does not answer"),
        (SAES, Slow(60), "the Hub does not answer"),
        (SAES, Slow(4, trickle=True), "the Hub does not answer"),
        (SAES, Status(429, {"Retry-After": "60"}), "HTTP 429 Too Many Requests, wait 60 s"),
        (SAES, Status(500), "HTTP 500"),
        (SAES, Gated(), "is gated"),
        (SAES, Status(401), "HTTP 401"),
        (SAES, Status(403), "the Hub denies access to org/saes"),
        (SAES, Status(404), "has no repository org/saes"),
        (MODEL, Refused(), "the Hub does not answer"),
        (MODEL, Gated(), "is gated"),
        (MODEL, Status(403), "the Hub denies access to org/model"),
    ],
)
def test_a_hub_that_does_not_tell_is_a_usage_error(judge, hub, repo, fault, said):
    """Nothing can be measured: exit code 4, the sentence with what to type, and no record, whatever is selected."""
    hub.model(SAES, saes("a"))
    hub.faults[f"/api/models/{repo}*"] = fault
    run = judge("-k", "nothing_of_that_name", "-n2")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert said in run.text
    assert "  try:      " in run.text
    assert "Traceback" not in run.text
    assert not run.record_path.exists()
    assert not run.junit_path.exists()
    if fault == Gated() or fault in (Status(401), Status(403), Status(404)):  # asking again does not change it
        assert sum(path.startswith(f"/api/models/{repo}") for _, path in hub.requests) == 1


@pytest.mark.parametrize("fault", [Gated(), Refused(), Missing()], ids=["gated", "refused", "missing"])
def test_a_release_without_any_configuration_is_a_usage_error(judge, hub, fault):
    """A gated repository lists its files and gives none: exit code 4. One SAE's file is an error of that SAE alone."""
    hub.model(SAES, saes("a", "b"))
    hub.faults[f"/{SAES}/resolve/*/cfg.json"] = fault
    run = judge()
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR, run.text
    assert SAES in run.text
    assert not run.record_path.exists()


def hostile():
    """An SAE each whose name, configuration or weights mean harm."""
    cfg = cfg_of(HOOKS[1])
    good = saes("good")
    weights = good["good/sae_weights.safetensors"]
    deep = "[" * 200 + "]" * 200
    bad = {
        '<b onload="x">&amp;]]>': good["good/cfg.json"],
        "\x1b[2J\x1b[31mred\x07": good["good/cfg.json"],
        "new\nline\ttab": good["good/cfg.json"],
        "absurd": json.dumps({**cfg, "d_sae": 10**12}).encode(),
        "absurd-both": json.dumps({**cfg, "d_sae": 10**12, "d_in": 10**12}).encode(),
        "deep": f'{{"metadata": {deep}}}'.encode(),
        "deeper": b"[" * 100_000,
        "nan": json.dumps({**cfg, "d_sae": float("nan")}).encode(),
        "infinite": json.dumps({**cfg, "d_in": float("inf")}).encode(),
        "long": b" " * 1_000_001 + b"{}",
        "markup": json.dumps(cfg_of('<script>alert("\x1b[31m\u202e\x00")</script>')).encode(),
        "names": json.dumps(cfg_of(HOOKS[1], model_name="\x1b]0;owned\x07<x>", dataset_path="../../etc")).encode(),
    }
    files = dict(good)
    for name, content in bad.items():
        files[f"{name}/cfg.json"] = content
        files[f"{name}/sae_weights.safetensors"] = weights
    return files


OUTSIDE = ("../../../../escaped", "a/../../../../../escaped", "/sae-checks-escaped")


def test_a_hostile_release_does_no_harm(judge, hub, tmp_path):
    """Nothing is written outside of the cache or allocated, every name is escaped, the good SAEs are judged."""
    files = hostile()
    for path in OUTSIDE:
        files |= {f"{path}/cfg.json": files["good/cfg.json"], f"{path}/sae_weights.safetensors": b"owned"}
    hub.model(SAES, files)
    run = judge()
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED
    kinds = {sae_id: run.outcomes[sae_id, "ce_loss"] for sae_id in run.record.release.sae_ids}
    passed = {sae_id for sae_id, outcome in kinds.items() if outcome == "passed"}
    assert passed == {"good", '<b onload="x">&amp;]]>', "\\x1b[2J\\x1b[31mred\\x07", "new\\nline\\ttab", "names"}, (
        run.text
    )
    said = {sae_id: run.results[sae_id, "ce_loss"].reason for sae_id in kinds.keys() - passed}
    assert all("\n  expected: " in reason for reason in said.values())
    for path in OUTSIDE:
        assert "lie outside of it" in said[path]
    assert "cfg.json (d_in, d_out, d_sae) asks for (1000000000000, 16)" in said["absurd"]  # nothing was allocated
    assert {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*")} == {("home",), ("home", "hub")}
    assert not [*tmp_path.parent.glob("*escaped"), *Path("/").glob("*escaped")]
    assert not_whole(tmp_path / "home") == []
    told = run.text + run.junit_path.read_text() + run.record_path.read_text()
    assert [c for c in told if not c.isprintable() and c != "\n"] == []
    assert len(run.junit) == N_CHECKS * len(kinds)  # it is well-formed, and holds them all
