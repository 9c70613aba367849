"""The folder of --sae-out in pytest: where pytest and pytest-benchmark write their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae_checks.plan import output_folder
from sae_checks.plan.output_folder import BENCHMARK, JUNIT, RECORD, REPORT
from sae_checks.plugin.state import REQUEST


def prepare(config: pytest.Config, folder: Path) -> None:
    """
    Create *folder*, and let pytest write its JUnit XML there unless --junitxml names another file.

    Raises:
        UsageError: the folder cannot be written.
    """
    output_folder.prepare(folder)
    if not config.getoption("xmlpath", None):
        config.option.xmlpath = str(folder / JUNIT)


def times_saes(config: pytest.Config) -> bool:
    """Whether the run times each SAE for benchmark.json. pytest-benchmark measures nothing under xdist."""
    request = config.stash.get(REQUEST, None)
    if request is None or request.plan.options.out is None or not config.pluginmanager.hasplugin("benchmark"):
        return False
    is_off = config.getoption("benchmark_disable") or config.getoption("benchmark_skip")
    return not is_off and not is_under_xdist(config)


def write_benchmark(config: pytest.Config) -> None:
    """Let pytest-benchmark write benchmark.json and print no table, unless --benchmark-json names another file."""
    # WHY not by its option: it would warn of every run in which -k leaves nothing to time
    benchmarks = config.pluginmanager.get_plugin("pytest-benchmark")
    folder = config.stash[REQUEST].plan.options.out
    if folder is not None and benchmarks is not None and not benchmarks.json:
        benchmarks.json, benchmarks.quiet = folder / BENCHMARK, True


def header_line(config: pytest.Config) -> list[str]:
    """The header line that names the files of --sae-out; none without it."""
    folder = config.stash[REQUEST].plan.options.out
    if folder is None or config.getoption("collectonly"):
        return []
    names = [RECORD, f"{REPORT}/"]
    names += [JUNIT] if config.getoption("xmlpath", None) == str(folder / JUNIT) else []
    names += [BENCHMARK] if times_saes(config) and not config.getoption("benchmark_json", None) else []
    none = f"; no {BENCHMARK}, since pytest-benchmark times nothing under xdist" if is_under_xdist(config) else ""
    return [f"sae-checks: writes {', '.join(names)} into {folder}{none}"]


def is_under_xdist(config: pytest.Config) -> bool:
    """Whether workers of pytest-xdist judge; in the controller and in each of them."""
    return hasattr(config, "workerinput") or config.getoption("dist", "no") != "no"
