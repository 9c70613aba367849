"""`pytest --sae-release gpt2-small-res-jb`, literally, against a Hub on the loopback, there and gone."""

import subprocess
import sys
from pathlib import Path

import pytest
import stand_in
from hub_server import LoopbackHub, environment

from sae_checks.record import record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(tmp_path):
    with LoopbackHub() as served:
        stand_in.stock(served, tmp_path / "gpt2")
        yield served


def gate(hub, folder):
    """Run the command in a new process whose cache is in *folder*; the process, and its record if there is one."""
    written = folder / "record.json"
    written.unlink(missing_ok=True)
    sizes = ("--sae-sequences=16", "--sae-study-sequences=0")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--sae-release", stand_in.RELEASE, *sizes, f"--sae-out={folder}"],
        cwd=ROOT,
        env={**environment(hub, folder / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    return done, record.read(written) if written.exists() else None


def outcomes(found, check):
    return {r.sae_id: r.outcome for r in found.results if r.check == check}


def test_the_literal_command_judges_thirteen_saes(hub, tmp_path):
    """From a cold cache every SAE is judged, pinned by commit; with the Hub gone nothing stale is judged in silence."""
    done, found = gate(hub, tmp_path)
    assert done.returncode == 1, done.stdout
    assert outcomes(found, "golden") == {"blocks.8.hook_resid_pre": "failed"}  # it knows the real release from this one
    n_far = sum(outcome == "failed" for outcome in outcomes(found, "sparsity").values())
    assert sum(r.outcome == "failed" for r in found.results) == 1 + n_far
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
    assert queries.n_sequences == 160  # sixteen queries of ten options
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
        again, stale = gate(hub, tmp_path)
        assert again.returncode == 4
        assert stale is None
        assert "the Hub does not answer" in again.stderr
        assert "HF_HUB_OFFLINE=1" in again.stderr


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
    (tmp_path / "text.txt").write_text("\n\n".join(stand_in.documents(32)))
    given = {what: str(tmp_path / name) for what, name in (("model", "model"), ("corpus", "text.txt"))}
    asked = settle(Options(release=str(tmp_path / "saes"), **given, device="cpu"))
    executor, sae_ids = LocalExecutor(asked.plan), asked.plan.release.sae_ids
    cells = [(sae_id, "sparsity") for sae_id in sae_ids]
    results = [judge(executor, asked, sae_id, checks.SPARSITY, cells) for sae_id in sae_ids]
    assert {r.sae_id: r.outcome for r in results} == dict.fromkeys(stand_in.HOOKS, "failed")
    assert {r.judged.measure for r in results} == {"explained_variance"}
