"""Each test of the gate is one check of one SAE, known before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae_checks import checks, errors
from sae_checks.plugin.state import GATE, GATE_ID, HUB_PROBLEM, LEDGER, REQUEST, cell_of, param_id

_CHECKS = {check.name for check in (*checks.CHECKS, checks.NO_REGRESSION)}
_SPEED = "test_speed.py"
_BENCHMARK_REQUESTS = (
    "benchmark_json",
    "benchmark_only",
    "benchmark_save",
    "benchmark_autosave",
    "benchmark_compare",
    "benchmark_enable",
)


class GateModule(pytest.Module):
    """A file of the gate, collected whatever names the user's own configuration looks for."""

    def funcnamefilter(self, name: str) -> bool:
        if not name.startswith("test_"):
            return False
        asked, check = self.config.stash.get(REQUEST, None), name.removeprefix("test_")
        # An empty parametrisation is a skip in pytest: a check that no SAE has is no test at all.
        return asked is None or check not in _CHECKS or any(check == has for _, has in asked.own)


class Unsettled(pytest.Directory):
    """In the gate's place where the Hub did not tell what there is to judge: an error that -k and -m do not hide."""

    def collect(self) -> list[pytest.Item]:
        raise self.CollectError(str(self.config.stash[HUB_PROBLEM]))


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if path != GATE or HUB_PROBLEM not in parent.config.stash:
        return None
    return Unsettled.from_parent(parent, path=path, nodeid=GATE_ID.rstrip("/"))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not _is_of_gate(file_path) or parent.session.isinitpath(file_path):
        return None
    if any(file_path.match(pattern) for pattern in parent.config.getini("python_files")):
        return None  # pytest collects it as it is, and `pytest_pycollect_makemodule` makes the module
    return _module(file_path, parent)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path != GATE / _SPEED or any(config.getoption(name, None) for name in _BENCHMARK_REQUESTS):
        return None
    return None if any(arg.partition("::")[0].endswith(_SPEED) for arg in config.args) else True


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _module(module_path, parent) if _is_of_gate(module_path) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not {"sae_judgement", "sae_speed"} & set(metafunc.fixturenames):  # `sae_id` alone may be the user's own
        return
    asked = metafunc.config.stash.get(REQUEST, None)
    if asked is None:
        raise pytest.Collector.CollectError(str(errors.release_not_given([metafunc.definition.nodeid])))
    check = metafunc.definition.get_closest_marker("sae_check")
    own, of_shard = asked.own, set(asked.plan.subjects_of_shard)
    subjects = [sae_id for sae_id in asked.plan.release.sae_ids if sae_id in of_shard]
    if check is not None:
        subjects = [cell[0] for cell in asked.limits if cell in own and cell[1] == check.args[0]]
    metafunc.parametrize("sae_id", subjects, scope="session", ids=param_id)


@pytest.hookimpl(trylast=True)  # behind pytest's own reordering by SAE
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # speed last, whatever a check is called: a benchmark takes along what the checks before it have measured
    items.sort(key=lambda item: item.nodeid.startswith(f"{GATE_ID}{_SPEED}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    ledger = session.config.stash.get(LEDGER, None)
    if ledger is not None:
        ledger.selected |= {cell for item in session.items if is_check(item) and (cell := cell_of(item.nodeid))}


def is_check(item: pytest.Item) -> bool:
    """Whether *item* is a check of the gate."""
    return item.get_closest_marker("sae_check") is not None


def _is_of_gate(path: Path) -> bool:
    return path.parent == GATE and path.name.startswith("test_")


def _module(path: Path, parent: pytest.Collector) -> pytest.Module | None:
    # The same node ids wherever the package is installed: they are the keys of JUnit and benchmark histories.
    return GateModule.from_parent(parent, path=path, nodeid=f"{GATE_ID}{path.name}")
