"""docs/ci.md: its workflows are sound and ask for what there is, and its shell runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import actions
import pytest
import yaml

from sae_checks.record import record

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PINNED = [text.replace("OWNER", "owner").replace("COMMIT", "0" * 40) for kind, text in BLOCKS if kind == "yaml"]
GITHUB = [text for text in PINNED if "jobs:" in text]
(GITLAB,) = (text for text in PINNED if "sae-merge:" in text)
SMALL = "--sae-study-sequences=0 -k sparsity"


def uses(document):
    """(what is used, what it is given) of every step and job that uses this project."""
    for job in document["jobs"].values():
        for step in [job, *job.get("steps", [])]:
            if "sae-checks" in step.get("uses", ""):
                yield step["uses"], step["with"], step.get("secrets", {})


@pytest.mark.parametrize("text", GITHUB, ids=[yaml.safe_load(text)["name"] for text in GITHUB])
def test_a_github_workflow_can_be_pasted(text, tmp_path):
    """Of GitHub's schema, clean for zizmor, and with inputs that the action or the workflow has."""
    path = tmp_path / ".github/workflows/gate.yml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    schema = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    done = subprocess.run(schema, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    done = subprocess.run(
        ["zizmor", "--offline", "--no-progress", str(path)],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found = list(uses(yaml.safe_load(text)))
    assert len(found) == 1
    for used, given, secrets in found:
        file = ".github/workflows/sae-gate.yml" if "sae-gate.yml" in used else "action.yml"
        known = {name.removeprefix("inputs.") for name in actions.defaults_of(file)}
        assert {"release"} <= set(given) <= known
        if file != "action.yml":
            assert set(secrets) <= set(actions.read(file)[True]["workflow_call"]["secrets"])


def test_the_inputs_are_written_down():
    """Every input of the action, and its outputs."""
    document = actions.read("action.yml")
    for name in (*document["inputs"], *document["outputs"]):
        assert f"`{name}`" in PAGE


def shell(script, folder, python, **env):
    """*script* by bash in *folder*, with the installed package first in the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON"))}
    path = {"PATH": f"{folder / 'bin'}:{python.parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    (folder / "bin").mkdir(exist_ok=True)
    pytest_here = folder / "bin/pytest"  # the environment has pytest without its script
    pytest_here.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -m pytest "$@"\n', encoding="utf-8")
    pytest_here.chmod(0o755)
    command = ["bash", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env={**kept, **path, **env}, capture_output=True, text=True, check=False)


def test_the_plain_shell_runs(installed_python, tmp_path):
    """As it stands: the demo in two shards, merged, green."""
    (script,) = (text for kind, text in BLOCKS if kind == "bash")
    done = shell(script, tmp_path, installed_python, PYTEST_ADDOPTS=SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    merged = record.read(tmp_path / "record.json")
    assert dict(merged.options)["shard"] is None
    assert len(merged.release.sae_ids) == 5


def test_gitlab_s_script_judges(installed_python, tmp_path):
    """Both nodes' scripts on demo-broken, and then the job that merges: red there, and the record is whole."""
    schema = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.gitlab-ci"]
    (tmp_path / ".gitlab-ci.yml").write_text(GITLAB, encoding="utf-8")
    done = subprocess.run([*schema, tmp_path / ".gitlab-ci.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    jobs = yaml.safe_load(GITLAB)
    scripts = {}
    for name, job in jobs.items():
        (install, *lines) = job["script"]
        assert install == "pip install sae-checks"
        scripts[name] = "\n".join(line for line in lines if "sae-checks report" not in line)  # tested elsewhere
    own = "--sae-release=saes --sae-model=openai-community/gpt2 --sae-corpus=text.jsonl --sae-thresholds=limits.toml"
    assert own in scripts["sae-gate"]
    judge = scripts["sae-gate"].replace(own, f"--sae-release=demo-broken {SMALL}")
    codes = [
        shell(judge, tmp_path, installed_python, CI_NODE_INDEX=str(i), CI_NODE_TOTAL="2").returncode for i in (1, 2)
    ]
    assert codes == [1, 0]
    done = shell(scripts["sae-merge"], tmp_path, installed_python)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: sparsity 0.453 < 0.96" in done.stdout
    assert len({r.sae_id for r in record.read(tmp_path / "record.json").results}) == 5


def test_a_training_run_s_folder_is_gated_as_written(installed_python, tmp_path):
    """The first example in a scratch repository whose saes/ has a damaged SAE: red, nothing uploaded, a record."""
    files = ROOT / "sae_checks/demo/files"
    work = tmp_path / "work"
    shutil.copytree(files / "saes", work / "saes")
    shutil.copytree(files / "saes-broken", work / "saes", dirs_exist_ok=True)
    shutil.copytree(files / "model", work / "model")
    shutil.copy(files / "text.jsonl", work / "text.jsonl")
    (work / "limits.toml").write_text(
        'schema = 1\n[default.ce_loss]\nmeasure = "ce_increase"\nmax = 0.2\nunit = "nats/token"\nsource = "ours"\n'
    )
    (example,) = (text for text in GITHUB if "\nname: Gate\n" in f"\n{text}")
    ((_, given, _),) = uses(yaml.safe_load(example))
    assert "--sae-model=openai-community/gpt2" in given["arguments"]
    given["arguments"] = given["arguments"].replace("openai-community/gpt2", "model") + " -k 'ce_loss or sparsity'"
    context = {"github.action_path": str(ROOT), **actions.defaults_of("action.yml")}
    context |= {f"inputs.{name}": str(value) for name, value in given.items()} | {"inputs.install": "false"}
    path = f"{installed_python.parent}:/usr/bin:/bin"
    ran = actions.Job(folder=work, artifacts=tmp_path / "artifacts", path=path, context=context)
    ran.run([*actions.steps_of("action.yml"), {"name": "upload", "run": "touch uploaded"}])
    assert (ran.outcomes["Judge"], ran.outcomes["upload"]) == ("failure", "skipped"), ran.said
    found = {(r.sae_id, r.check): r for r in record.read(tmp_path / "artifacts/sae-gate/record.json").results}
    outcomes = {sae_id: r.outcome for (sae_id, check), r in found.items() if check == "ce_loss"}
    assert outcomes.pop("blocks.2.hook_resid_pre") == "failed"
    assert set(outcomes.values()) == {"passed"}
    assert found["blocks.2.hook_resid_pre", "ce_loss"].limit.source == "ours"
