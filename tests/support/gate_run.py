"""One run of pytest, here or in a process of its own, and what it left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sae_checks.record import record
from sae_checks.record.results import Record, Result

Cell = tuple[str, str]

OUT = "out"
"""The folder of --sae-out, in the folder of the run."""
QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class GateRun:
    """What one run of pytest left behind."""

    exit_code: int
    lines: list[str]
    record_path: Path
    junit_path: Path

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def counts(self) -> dict[str, int]:
        """Passed, failed, skipped, errors: those that pytest's last line speaks of."""
        return pytest.RunResult.parse_summary_nouns(self.lines)

    @cached_property
    def record(self) -> Record:
        return record.read(self.record_path)

    @cached_property
    def results(self) -> dict[Cell, Result]:
        return {(result.sae_id, result.check): result for result in self.record.results}

    @property
    def outcomes(self) -> dict[Cell, str]:
        return {cell: result.outcome for cell, result in self.results.items()}

    @property
    def junit_verdict(self) -> str | None:
        """The verdict on the run, among the properties of the JUnit suite."""
        (suite,) = ET.parse(self.junit_path).getroot().iter("testsuite")
        return properties_of(suite).get("sae_checks.verdict")

    @property
    def junit(self) -> dict[Cell, ET.Element]:
        """The JUnit test cases of the gate, by the SAE and check that their properties name."""
        cases = {}
        for case in ET.parse(self.junit_path).getroot().iter("testcase"):
            found = properties_of(case)
            cases[found.get("sae_id", case.get("name", "")), found.get("check", "")] = case
        return cases


def properties_of(case: ET.Element) -> dict[str, str]:
    """The properties of one JUnit test case."""
    return {p.attrib["name"]: p.attrib["value"] for p in case.iterfind("properties/property")}


def run_apart(folder: Path, *args: str) -> GateRun:
    """`pytest ARGS` in a process of its own, in *folder*, with a record if a release is asked for and JUnit XML."""
    asks = any(arg.startswith("--sae-release") for arg in args)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options_of_outputs(folder, asks=asks), *args],
        cwd=folder,
        env=_without_outer_run(),
        capture_output=True,
        text=True,
        check=False,
    )
    return run_in(folder, done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()])


def options_of_outputs(folder: Path, *, asks: bool) -> list[str]:
    """The options that write record, report and JUnit XML, this also where no release is given."""
    return [f"--junitxml={folder / 'junit.xml'}", *([f"--sae-out={folder / OUT}"] if asks else [])]


def run_in(folder: Path, exit_code: int, lines: list[str]) -> GateRun:
    record_path = folder / OUT / "record.json"
    return GateRun(exit_code=exit_code, lines=lines, record_path=record_path, junit_path=folder / "junit.xml")


def _without_outer_run() -> dict[str, str]:
    """The environment less what the outer run or the person who started it put there; no network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, **QUIET}
