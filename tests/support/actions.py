"""Runs the steps of action.yml and of a job here as GitHub's runner would: shell, environment, conditions."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
SHELLS = {  # as GitHub documents them: only the named one fails in the middle of a pipe
    None: ("bash", "-e"),
    "bash": ("bash", "--noprofile", "--norc", "-eo", "pipefail"),
}
WITHOUT_EFFECT_HERE = ("actions/checkout", "actions/setup-python", "actions/cache")


def read(path: str) -> Any:
    """A YAML file of the checkout."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def steps_of(path: str, job: str | None = None) -> list[dict[str, Any]]:
    """The steps of a composite action, or of one job of a workflow, whose default shell they get."""
    document = read(path)
    if job is None:
        return list(document["runs"]["steps"])
    shell = document.get("defaults", {}).get("run", {}).get("shell")
    return [{"shell": shell, **step} if "run" in step else step for step in document["jobs"][job]["steps"]]


def defaults_of(path: str) -> dict[str, str]:
    """What the inputs of an action or a reusable workflow are where the caller says nothing."""
    document = read(path)
    inputs = document["inputs"] if "inputs" in document else document[True]["workflow_call"]["inputs"]  # on: is True
    return {f"inputs.{name}": str(of.get("default", "")) for name, of in inputs.items()}


@dataclass
class Job:
    """One run of steps in a folder."""

    folder: Path
    artifacts: Path
    path: str
    """$PATH; its first Python is the one that was set up."""
    context: dict[str, str]
    """what expressions find: inputs.x, needs.x, ..."""
    outcomes: dict[str, str] = field(default_factory=dict)
    said: str = ""
    summary: str = ""

    @property
    def is_green(self) -> bool:
        return "failure" not in self.outcomes.values()

    def run(self, steps: list[dict[str, Any]]) -> Job:
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, step in enumerate(steps):
            name = step.get("name", step.get("uses", "").partition("@")[0] or f"step {i}")
            if not self._is_due(step.get("if", "")):
                self.outcomes[name] = "skipped"
            elif "uses" in step:
                self._use(step["uses"].partition("@")[0], {k: self._filled(str(v)) for k, v in step["with"].items()})
                self.outcomes[name] = "success"
            else:
                self.outcomes[name] = self._shell(step, i)
            if "id" in step:
                self.context[f"steps.{step['id']}.outcome"] = self.outcomes[name]
        return self

    def _is_due(self, condition: str) -> bool:
        terms = [term.strip() for term in condition.split("&&") if term.strip()]
        if "always()" not in terms and not self.is_green:
            return False
        return all(self._holds(term) for term in terms if term != "always()")

    def _holds(self, term: str) -> bool:
        found = re.fullmatch(r"([\w.-]+) (==|!=) '(.*)'", term)
        assert found, f"a condition that this runner does not know: {term}"
        return (self.context.get(found[1], "") == found[3]) is (found[2] == "==")

    def _filled(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self.context.get(found[1], ""), text)

    def _use(self, action: str, given: dict[str, str]) -> None:
        if action == "actions/upload-artifact":
            place = self.folder / given["path"]
            if place.exists():
                shutil.copytree(place, self.artifacts / given["name"], dirs_exist_ok=True)
        elif action == "actions/download-artifact":
            for artifact in self.artifacts.iterdir():
                if fnmatch.fnmatch(artifact.name, given["pattern"]):
                    shutil.copytree(artifact, self.folder / given["path"] / artifact.name)
        else:
            assert action in WITHOUT_EFFECT_HERE, action

    def _shell(self, step: dict[str, Any], i: int) -> str:
        assert not EXPRESSION.search(step["run"]), "inputs reach the shell by its environment alone"
        files = {name: self.folder / f".{name}-{i}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.touch()
        script = self.folder / f".step-{i}.sh"
        script.write_text(step["run"], encoding="utf-8")
        env = {
            **{name: os.environ[name] for name in ("HOME", "SAE_CHECKS_CACHE") if name in os.environ},
            "PATH": self.path,
            "CI": "true",
            "OMP_NUM_THREADS": "1",
            "PIP_NO_INDEX": "1",  # what is installed here comes from the checkout
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **{name: str(path) for name, path in files.items()},
            **{name: self._filled(str(value)) for name, value in step.get("env", {}).items()},
        }
        done = subprocess.run(
            [*SHELLS[step.get("shell")], str(script)],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.said += done.stdout
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        for line in files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            self.context[f"steps.{step.get('id')}.outputs.{key}"] = value
        return "success" if done.returncode == 0 else "failure"
