"""`pytest --sae-release gpt2-small-res-jb`, literally, against a Hub on the loopback, there and gone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in
import stand_in_converted
from hub_server import LoopbackHub, environment

from sae_checks.record import record

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with LoopbackHub() as served:
        stand_in.stock(served, tmp_path_factory.mktemp("gpt2"))
        yield served


@pytest.fixture
def gate(hub, tmp_path):
    """Runs the gate in a new process with an empty cache (or *home*); gives the process and its record, if any."""

    def run(*arguments, home=tmp_path / "home", **more):
        wanted = tmp_path / "record.json"
        wanted.unlink(missing_ok=True)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "--sae-sequences=16",
                "--sae-study-sequences=0",
                f"--sae-record={wanted}",
                *arguments,
            ],
            cwd=ROOT,
            env={**environment(hub, home), "OMP_NUM_THREADS": "1", **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        return done, record.read(wanted) if wanted.exists() else None

    yield run
    hub.faults.clear()


def outcomes(found, check):
    return {r.sae_id: r.outcome for r in found.results if r.check == check}


def test_the_literal_command_judges_thirteen_saes(gate, hub, tmp_path):
    """From a cold cache every SAE is judged, pinned by commit; with the Hub gone nothing stale is judged in silence."""
    done, found = gate("--sae-release", stand_in.RELEASE)
    assert done.returncode == 1, done.stdout
    assert outcomes(found, "golden") == {"blocks.8.hook_resid_pre": "failed"}  # it knows the real release from this one
    n_far = sum(outcome == "failed" for outcome in outcomes(found, "sparsity").values())
    assert done.stdout.count("FAILED sae_checks") == 1 + n_far
    assert hub.unserved == []
    assert found.release.revision == hub.repos["model", stand_in.SAE_REPO].sha
    for check in ("ce_loss", "long_context"):
        assert outcomes(found, check) == dict.fromkeys(stand_in.HOOKS, "passed"), done.stdout
    for hook in stand_in.HOOKS:  # of 8 latents per token; the registry has 10 for the first two, 18 to 70 for the rest
        (sparsity,) = (r for r in found.results if (r.sae_id, r.check) == (hook, "sparsity"))
        assert sparsity.outcome == ("passed" if hook in stand_in.HOOKS[:2] else "failed"), sparsity.reason
        assert ("L0 is far from the one recorded" in sparsity.reason) == (sparsity.outcome == "failed")
    for check in ("lambada", "cbt"):
        assert set(outcomes(found, check).values()) == {"not_measured"}  # a random model answers nothing
    (queries,) = {r.provenance.corpus for r in found.results if r.check == "cbt"}
    assert queries.source == f"cam-cst/cbt@{hub.repos['dataset', 'cam-cst/cbt'].sha}:CN:test"
    assert queries.n_sequences == 120  # twelve queries of ten options
    assert dict(found.options)["corpus_reason"] == "the SAEs' own training text"
    (text,) = {r.provenance.corpus.source for r in found.results if r.check == "ce_loss"}
    text_commit = hub.repos["dataset", "Skylion007/openwebtext"].branches["refs/convert/parquet"]
    assert text == f"Skylion007/openwebtext@{text_commit}:plain_text:train"
    (model,) = {r.provenance.model for r in found.results if r.provenance}
    assert model.source == f"gpt2@{hub.repos['model', 'gpt2'].sha}"
    fetched = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert fetched
    assert not [path for path in fetched if "/resolve/main/" in path and "datasets" not in path]

    with hub.unreachable():
        again, stale = gate("--sae-release", stand_in.RELEASE)
        assert again.returncode == 1
        assert stale is None
        assert "the Hub does not answer" in again.stdout
        assert "HF_HUB_OFFLINE=1" in again.stdout

        # asked to be offline it judges exactly the commit that is cached; datasets are not, so text comes from a file
        text = tmp_path / "text.txt"
        text.write_text("\n\n".join(stand_in.documents(30)))
        passages = tmp_path / "passages.jsonl"
        passages.write_text("".join(json.dumps({"text": d}) + "\n" for d in stand_in.documents(12, 20)))
        corpora = (f"--sae-corpus={text}", f"--sae-lambada={passages}")
        offline, cached = gate("--sae-release", stand_in.RELEASE, *corpora, "-k", "ce_loss", HF_HUB_OFFLINE="1")
        assert offline.returncode == 0, offline.stdout
        assert cached.release.revision == found.release.revision
        assert f"SAEs {stand_in.SAE_REPO}@{found.release.revision} (offline, as the cache has it)" in offline.stdout
        assert outcomes(cached, "ce_loss") == dict.fromkeys(stand_in.HOOKS, "passed")


def test_dropped_centring_is_seen(tmp_path):
    """The same weights without the registry's centring explain nothing: the sparsity check is red for all of them."""
    from judged import judge

    from sae_checks import checks
    from sae_checks.measuring.local import LocalExecutor
    from sae_checks.plan.options import Options
    from sae_checks.run.settle import settle

    stand_in.model_files(tmp_path / "model")
    for path, content in stand_in.sae_files().items():
        (tmp_path / "saes" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "saes" / path).write_bytes(content)
    (tmp_path / "text.txt").write_text("\n\n".join(stand_in.documents(30)))
    given = {what: str(tmp_path / name) for what, name in (("model", "model"), ("corpus", "text.txt"))}
    asked = settle(Options(release=str(tmp_path / "saes"), **given, device="cpu"))
    executor, sae_ids = LocalExecutor(asked.plan), asked.plan.release.sae_ids
    cells = [(sae_id, "sparsity") for sae_id in sae_ids]
    results = [judge(executor, asked, sae_id, checks.SPARSITY, cells) for sae_id in sae_ids]
    assert {r.sae_id: r.outcome for r in results} == dict.fromkeys(stand_in.HOOKS, "failed")
    assert all("explained_variance" in r.reason for r in results)


def test_a_repository_outside_the_registry(gate, hub):
    """`org/name` finds its SAEs by their cfg.json; an unknown one, and an unknown revision, say so with exit code 4."""
    hub.model("somebody/saes", stand_in.sae_files())
    done, found = gate("--sae-release", "somebody/saes", "--sae-id", "blocks.2.*", "-k", "ce_loss")
    assert done.returncode == 0, done.stdout
    assert found.release.sae_ids == ("blocks.2.hook_resid_pre",)
    assert found.release.source == "somebody/saes"
    for name, message in (("nobody/saes", "has no repository"), ("somebody/saes@v9", "has no revision 'v9'")):
        done, found = gate("--sae-release", name)
        assert done.returncode == 4
        assert found is None
        assert message in done.stderr


def test_a_release_that_sae_lens_converts(gate, hub):
    """All heads of one layer, from a pickle that was asked for: judged, with commit and hashes in the record."""
    family = next(f for f in stand_in_converted.FAMILIES if f.conversion == "connor_rob_hook_z")
    repo = hub.model(family.repo_id, dict(family.files()))
    asked = ("--sae-release", family.release, "--sae-id", family.sae_id, "-k", "ce_loss or sparsity")
    done, found = gate(*asked, "--sae-allow-pickle")
    assert done.returncode == 1, done.stdout
    assert outcomes(found, "sparsity") == {family.sae_id: "failed"}, done.stdout  # its numbers are random
    assert found.release.revision == repo.sha
    (facts,) = {r.provenance.sae for r in found.results if r.provenance}
    at_commit = repo.commits[repo.sha]
    assert {file.name: file.sha256 for file in facts.weights} == {
        path: at_commit[path].sha256 for path in family.files()
    }
