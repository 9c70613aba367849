"""action.yml and the workflows: sound by their schemas and zizmor, and their shell run here on the demo."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import actions
import pytest

from sae_checks.comparing.history import runs, store
from sae_checks.record import record

ROOT = Path(__file__).parents[2]
GATE = ".github/workflows/sae-gate.yml"
WORKFLOWS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / ".github/workflows").glob("*.yml"))
SMALL = "--sae-batch-tokens=8192 --sae-study-sequences=0 -k 'ce_loss or sparsity or speed'"


@pytest.mark.parametrize("path", ["action.yml", *WORKFLOWS])
def test_they_are_hardened(path):
    """No permission that is not named, pinned actions, no token left behind, a timeout, inputs by environment alone."""
    text = (ROOT / path).read_text(encoding="utf-8")
    document = actions.read(path)
    for used in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used
    assert "pull_request_target" not in text
    jobs = document.get("jobs", {"": {"steps": document.get("runs", {}).get("steps")}})
    for job in jobs.values():
        assert path == "action.yml" or ("timeout-minutes" in job and "permissions" in job)
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            piped = "|" in step.get("run", "").replace("||", "")
            assert not piped or step.get("shell", document.get("defaults", {}).get("run", {}).get("shell")) == "bash"
    if path != "action.yml":
        assert document["permissions"] == {}


def test_only_the_job_that_publishes_can():
    """id-token stands in one job, which runs nothing of the checkout, in an environment of its own."""
    jobs = actions.read(".github/workflows/release.yml")["jobs"]
    assert {name for name, job in jobs.items() if "id-token" in job["permissions"]} == {"publish"}
    publish = jobs["publish"]
    assert (publish["permissions"], publish["environment"]["name"]) == ({"id-token": "write"}, "pypi")
    assert not any("run" in step or "checkout" in step["uses"] for step in publish["steps"])


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-actions", ["action.yml"]),
        ("dependabot", [".github/dependabot.yml"]),
        ("citation-file-format", ["CITATION.cff"]),
    ],
)
def test_they_are_of_their_schemas(schema, paths, tmp_path):
    """And a key that nobody knows is seen."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*check, *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for path in paths:
        spoilt = tmp_path / Path(path).name
        spoilt.write_text((ROOT / path).read_text(encoding="utf-8") + "\nno-such-key: {}\n", encoding="utf-8")
        assert subprocess.run([*check, spoilt], capture_output=True, check=False).returncode == 1


def test_zizmor_finds_nothing(tmp_path):
    """And finds an input that is pasted into the shell."""
    zizmor = [Path(sys.executable).parent / "zizmor", "--offline", "--no-progress", "--persona=pedantic"]
    if not zizmor[0].exists():
        zizmor[0] = Path("zizmor")
    done = subprocess.run([*zizmor, ".github", "action.yml"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    (tmp_path / "action.yml").write_text(
        text.replace("--sae-release=$RELEASE$", "--sae-release=${{ inputs.release }}$")
    )
    done = subprocess.run([*zizmor, tmp_path / "action.yml"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "template-injection" in done.stdout


def job(folder, python, **context):
    return actions.Job(
        folder=folder / "work",
        artifacts=folder / "artifacts",
        path=f"{python.parent}:/usr/bin:/bin",
        context={key.replace("__", "."): value for key, value in context.items()},
    )


@pytest.fixture(scope="module")
def ran_action(tmp_path_factory, installed_python):
    """The steps of action.yml on a release; once for each."""
    done = {}

    def run(release, arguments=SMALL, **inputs):
        if (release, arguments) not in done:
            folder = tmp_path_factory.mktemp("action")
            found = job(folder, installed_python, **{"github.action_path": str(ROOT)})
            found.context.update(actions.defaults_of("action.yml"))
            found.context.update({"inputs.release": release, "inputs.arguments": arguments, "inputs.history": "kept"})
            found.context.update(inputs)
            done[release, arguments] = found.run(actions.steps_of("action.yml"))
        return done[release, arguments]

    return run


def test_the_action_judges_a_release(ran_action):
    """Green: every step in order, and record, JUnit and benchmarks in the artifact and at the outputs."""
    ran = ran_action("demo")
    assert {ran.outcomes[name] for name in ("Install sae-checks", "Plan", "Judge")} == {"success"}, ran.said
    assert ran.outcomes["Cache what comes from the Hub, by commit"] == "skipped", "nothing comes from it"
    kept = ran.artifacts / "sae-gate"
    written = record.read(kept / "record.json")
    assert {r.outcome for r in written.results if r.check in ("ce_loss", "sparsity")} == {"passed"}
    assert dict(written.options)["n_batch_tokens"] == 8192, "the arguments arrived"
    assert len(ET.parse(kept / "junit.xml").findall(".//testcase")) == 15
    assert (kept / "benchmark.json").stat().st_size > 1000
    assert ran.folder / ran.context["steps.gate.outputs.record"] == ran.folder / "sae-gate/record.json"


def test_a_green_action_has_its_report(ran_action):
    """In the job's summary, in the artifact and at the output; and the job is green."""
    ran = ran_action("demo")
    assert ran.is_green, ran.said
    assert (ran.artifacts / "sae-gate/report/index.html").stat().st_size > 1000
    assert ran.context["steps.report.outputs.report"] == "sae-gate/report/index.html"
    assert "blocks.2.hook_resid_pre" in ran.summary


@pytest.mark.parametrize("release", ["demo", "demo-broken"])
def test_an_action_keeps_its_run_in_the_history(ran_action, release):
    """Green or red: the record that is in the artifact."""
    ran = ran_action(release)
    (kept,), unreadable = runs.load_runs(store.open_history(str(ran.folder / "kept")), release)
    assert not unreadable
    assert kept.record == record.read(ran.artifacts / "sae-gate/record.json")


def test_a_red_action_keeps_what_was_measured(ran_action):
    """Red by the step that judges; what comes behind it runs, and the artifact is there."""
    ran = ran_action("demo-broken")
    assert ran.outcomes["Judge"] == "failure"
    assert not ran.is_green
    found = {(r.sae_id, r.check): r.outcome for r in record.read(ran.artifacts / "sae-gate/record.json").results}
    assert found["blocks.2.hook_resid_pre", "ce_loss"] == "failed"
    assert ran.outcomes["Report"] != "skipped"
    assert "FAILED: ce_loss 2.06 > 0.0282 nats/token" in ran.said


def test_a_red_action_shows_why(ran_action):
    """The summary and the report name the SAE and the check."""
    ran = ran_action("demo-broken")
    assert ran.outcomes["Report"] == "success", ran.said
    page = (ran.artifacts / "sae-gate/report/index.html").read_text(encoding="utf-8")
    for text in (ran.summary, page):
        assert "blocks.2.hook_resid_pre" in text
        assert "CE loss" in text


@pytest.mark.parametrize(
    ("release", "arguments", "said"),
    [
        ("no-such-release", "", "no SAE release 'no-such-release'"),
        ("demo", "-k no_such_check", "no check of the release ran"),
        ("demo", "tests", "file or directory not found"),
        ('demo"; touch pwned; echo "', "", "no SAE release"),
        ("demo", "-k '$(touch pwned)'", ""),
    ],
)
def test_an_action_that_judges_nothing_is_red(ran_action, release, arguments, said):
    """A name or a check that is none, a path in the arguments, shell in an input: red, and nothing of it ran."""
    ran = ran_action(release, arguments, **{"inputs.install": "false"})
    assert not ran.is_green
    assert said in ran.said
    assert not list(ran.folder.rglob("pwned*"))
    assert not (ran.artifacts / "sae-gate/record.json").exists()


@pytest.fixture(scope="module")
def ran_workflow(tmp_path_factory, installed_python, distributions):
    """The jobs of the reusable workflow on demo-broken, in two shards."""
    folder = tmp_path_factory.mktemp("workflow")
    inputs = actions.defaults_of(GATE)
    inputs.update({"inputs.release": "demo-broken", "inputs.arguments": SMALL, "inputs.shards": "2"})
    inputs["inputs.package"] = str(distributions[0])
    inputs["inputs.history"] = str(folder / "kept")
    plan = job(folder / "plan", installed_python, **inputs).run(actions.steps_of(GATE, "plan"))
    assert plan.is_green, plan.said
    needs = {
        key.replace("steps.plan", "needs.plan"): value
        for key, value in plan.context.items()
        if key.startswith("steps.plan.outputs.")
    }
    jobs = {"plan": plan}
    for shard in (1, 2):
        found = job(folder / str(shard), installed_python, **inputs, **needs, **{"matrix.shard": str(shard)})
        found.artifacts = folder / "artifacts"
        jobs[f"judge {shard}"] = found.run(actions.steps_of(GATE, "judge"))
    jobs["report"] = job(folder / "report", installed_python, **inputs, **needs)
    jobs["report"].artifacts = folder / "artifacts"
    jobs["report"].run(actions.steps_of(GATE, "report"))
    return jobs


def test_the_workflow_deals_judges_and_merges(ran_workflow):
    """Two shards that each judge some of the SAEs; one record of all of them, red for the one that is broken."""
    assert ran_workflow["plan"].context["steps.plan.outputs.shards"] == "[1, 2]"
    assert not ran_workflow["judge 1"].is_green, "the damaged SAE is the third"
    assert ran_workflow["judge 2"].is_green, ran_workflow["judge 2"].said
    report = ran_workflow["report"]
    assert report.outcomes["Merge"] == "failure", "merge says it in its exit code, and tee does not hide that"
    assert "FAILED: ce_loss 2.06 > 0.0282 nats/token" in report.said
    merged = record.read(report.artifacts / "sae-gate/record.json")
    judged = [r.sae_id for r in merged.results if r.check == "ce_loss" and r.outcome in ("passed", "failed")]
    assert judged == list(merged.release.sae_ids)
    for shard in (1, 2):
        assert (report.artifacts / f"sae-gate-shard-{shard}/junit.xml").exists()
    (kept,), _ = runs.load_runs(store.open_history(report.context["inputs.history"]), "demo-broken")
    assert kept.record == merged


def test_the_workflow_s_report_shows_why(ran_workflow):
    """In the summary of its last job and in the artifact."""
    report = ran_workflow["report"]
    assert report.outcomes["Report"] == "success", report.said
    assert "blocks.2.hook_resid_pre" in report.summary
    assert (report.artifacts / "sae-gate/report/index.html").exists()


def test_a_shard_that_left_nothing_is_seen(ran_workflow, tmp_path, installed_python):
    """With the record of one shard alone the last job is red, writes none, and its summary names what is missing."""
    before = ran_workflow["report"]
    alone = job(tmp_path, installed_python, **actions.defaults_of(GATE))
    (alone.artifacts / "sae-gate-shard-1").mkdir(parents=True)
    told = (before.artifacts / "sae-gate-shard-1/record.json").read_bytes()
    (alone.artifacts / "sae-gate-shard-1/record.json").write_bytes(told)
    alone.run([step for step in actions.steps_of(GATE, "report") if step.get("name") != "Install"])
    assert alone.outcomes["Merge"] == "failure"
    assert "ce_loss of blocks.1.hook_resid_pre" in alone.summary
    assert not (alone.artifacts / "sae-gate").exists() or not list((alone.artifacts / "sae-gate").iterdir())


def test_the_runner_of_these_tests_is_no_kinder_than_github_s(tmp_path):
    """A step behind a failure is skipped, always() runs it, and a pipe hides a failure but in bash by name."""
    steps = [
        {"name": "piped", "run": "false | cat"},
        {"name": "named", "run": "false | cat", "shell": "bash"},
        {"name": "next", "run": "true"},
        {"name": "always", "if": "always() && inputs.a == 'b'", "run": "echo c=$C >> $GITHUB_OUTPUT", "id": "x"},
        {"name": "not", "if": "always() && inputs.a != 'b'", "run": "true"},
    ]
    steps[3]["env"] = {"C": "${{ inputs.a }}"}
    ran = job(tmp_path, Path("/usr/bin/python"), **{"inputs.a": "b"}).run(steps)
    assert ran.outcomes == {
        "piped": "success",
        "named": "failure",
        "next": "skipped",
        "always": "success",
        "not": "skipped",
    }
    assert ran.context["steps.x.outputs.c"] == "b"
    with pytest.raises(AssertionError, match="environment alone"):
        ran.run([{"run": "echo ${{ inputs.a }}", "if": "always()"}])
