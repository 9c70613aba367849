"""`sae-checks plan`: shards, pinned release and cache key for a workflow, from pytest's own idea of the run."""

import json
import subprocess
import sys
from dataclasses import replace

import builders
import pytest
from hub_server import LoopbackHub, environment

from sae_checks import errors
from sae_checks.commands import main
from sae_checks.commands.plan import outputs
from sae_checks.plan import model_source, options, plan
from sae_checks.release import hub as of_hub
from sae_checks.release import release


def asked(folder, *arguments):
    """The command in a process of its own: pytest runs in it."""
    done = subprocess.run(
        [sys.executable, "-m", "sae_checks", "plan", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def test_the_plan_of_the_demo(tmp_path):
    """As many shards as asked for, at most as many as SAEs; nothing comes from the Hub; stdout has nothing else."""
    done, found = asked(tmp_path, "--shards", "9", "--", "--sae-release=demo", "-k", "sparsity")
    assert done.returncode == 0, done.stderr
    assert found == {"shards": "[1, 2, 3, 4, 5]", "n-shards": "5", "release": "demo", "revision": "", "cache-key": ""}
    assert "test_sparsity.py: 5" in done.stderr
    assert "warning" not in done.stderr
    assert "--sae-shard=I/N --sae-out=shard-I" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sae-release=no-such-release",), "no SAE release"),
        (("--sae-release=demo", "-k", "no_such_check"), "no check of the release ran"),
    ],
)
def test_what_cannot_be_planned(tmp_path, arguments, said):
    """The message of pytest, exit code 4, and no line for the workflow."""
    done, found = asked(tmp_path, "--", *arguments)
    assert (done.returncode, found) == (4, {})
    assert said in done.stderr


def test_tests_without_a_release_are_no_plan(tmp_path):
    """A user's own tests alone: the release is missing, whatever else can be collected."""
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert True\n")
    done, found = asked(tmp_path, "--", "test_own.py")
    assert (done.returncode, found) == (4, {})
    assert "no release is given" in done.stderr


def test_no_shards_are_refused(capsys):
    """At least one."""
    assert main.main(["plan", "--shards", "0", "--", "--sae-release=demo"]) == 4
    assert "--shards cannot be '0'" in capsys.readouterr().err


def _settled(**of_release):
    found = replace(release.resolve("demo"), **of_release)
    return plan.make(options.Options(release=f"{found.source}@main"), found)


def test_a_release_of_the_hub_is_pinned():
    """By its commit, under its name without the revision that was asked for; another commit has another key."""
    keys = []
    for commit in ("0" * 40, "1" * 40):
        lines = outputs(_settled(source="org/saes", revision=commit, name="org/saes"), n_shards=1)
        found = dict(line.partition("=")[::2] for line in lines)
        assert (found["release"], found["revision"], json.loads(found["shards"])) == ("org/saes", commit, [1])
        keys.append(found["cache-key"])
    assert len(set(keys)) == 2
    assert all(keys)


def test_a_model_of_the_hub_is_in_the_key():
    """Its commit moves the key, although the SAEs lie on disk."""
    settled = _settled()
    keys = set()
    for commit in ("0" * 40, "1" * 40):
        repo = of_hub.HubRepo(repo_id="org/model", kind="model", commit=commit, files=(), offline=False)
        source = model_source.ModelSource(folder=None, repo=repo)
        lines = outputs(
            replace(settled, models=(model_source.ModelWithSaes(source=source, sae_ids=("a",)),)), n_shards=1
        )
        keys |= {line for line in lines if line.startswith("cache-key=")}
    assert len(keys) == 2
    assert "cache-key=" not in keys


def test_a_name_of_several_lines_writes_no_output(tmp_path):
    """A folder's name cannot add a key of its own."""
    folder = builders.write_sae(tmp_path / "a\nrevision=evil")
    settled = replace(_settled(), options=options.Options(release=str(folder)))
    with pytest.raises(errors.UsageError, match="a name on one line"):
        outputs(settled, n_shards=1)


def test_a_pull_request_on_the_hub_is_pinned(tmp_path):
    """refs/pr/1, not main; the shards then judge that commit, whatever the pull request becomes meanwhile."""
    demo = release.resolve("demo")
    folder = builders.write_sae(tmp_path / "sae")
    files = {f"blocks.2/{path.name}": path.read_bytes() for path in folder.iterdir()}
    with LoopbackHub() as hub:
        repo = hub.model("org/saes", files)
        proposed = repo.commit({**files, "README.md": b"better\n"}, branch="refs/pr/1")
        assert proposed != repo.sha
        given = {"release": "org/saes@refs/pr/1", "model": demo.model, "corpus": demo.corpus}
        given |= {"lambada": demo.lambada, "cbt": demo.cbt}
        asked_of = [f"--sae-{name}={value}" for name, value in given.items()]
        done = subprocess.run(
            [sys.executable, "-m", "sae_checks", "plan", "--", *asked_of],
            cwd=tmp_path,
            env=environment(hub, tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"revision={proposed}" in done.stdout.splitlines()
        assert "release=org/saes" in done.stdout.splitlines()
        assert hub.unserved == []
