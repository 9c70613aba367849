"""Collects the gate: one test for each check of each SAE, known before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae_checks import checks, errors
from sae_checks.plugin import outputs
from sae_checks.plugin.state import GATE, GATE_ID, REQUEST, RUN_STATE, cell_in_nodeid, param_id
from sae_checks.run import settle

_CHECK_NAMES = {check.name for check in (*checks.CHECKS, checks.NO_REGRESSION)}
_SPEED_FILE = "test_speed.py"
_BENCHMARK_OPTIONS = (
    "benchmark_json",
    "benchmark_only",
    "benchmark_save",
    "benchmark_autosave",
    "benchmark_compare",
    "benchmark_enable",
)


class GateModule(pytest.Module):
    """A file of the gate. It is collected whatever `python_files` and `python_functions` the user has configured."""

    def funcnamefilter(self, name: str) -> bool:
        """Whether the function *name* is collected."""
        if not name.startswith("test_"):
            return False
        request, check = self.config.stash.get(REQUEST, None), name.removeprefix("test_")
        if request is None or check not in _CHECK_NAMES:
            return True
        # WHY: pytest reports an empty parametrisation as a skip, so a check that no SAE has is not collected
        return any(check == own_check for _, own_check in request.own)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a file of the gate that the user's `python_files` does not match."""
    if not _is_in_gate(file_path) or parent.session.isinitpath(file_path):
        return None
    if any(file_path.match(pattern) for pattern in parent.config.getini("python_files")):
        return None  # WHY: pytest collects such a file itself, and `pytest_pycollect_makemodule` makes the module
    return _gate_module(file_path, parent)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the timing out, unless --sae-out, an option of pytest-benchmark or a path selects it."""
    if collection_path != GATE / _SPEED_FILE or any(config.getoption(name, None) for name in _BENCHMARK_OPTIONS):
        return None
    if outputs.times_saes(config):
        return None
    return None if any(arg.partition("::")[0].endswith(_SPEED_FILE) for arg in config.args) else True


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Make the module of a file of the gate."""
    return _gate_module(module_path, parent) if _is_in_gate(module_path) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each check of the gate an item for every SAE or stack of the run."""
    # WHY: a test of the user's own may have an argument `sae_id` as well
    if not {"sae_judgement", "sae_speed"} & set(metafunc.fixturenames):
        return
    request = metafunc.config.stash.get(REQUEST, None)
    if request is None:
        raise pytest.Collector.CollectError(str(errors.release_not_given([metafunc.definition.nodeid])))
    marker = metafunc.definition.get_closest_marker("sae_check")
    if marker is None:
        of_shard = set(request.plan.subjects_of_shard)
        subjects = [sae_id for sae_id in request.plan.release.sae_ids if sae_id in of_shard]
    else:
        own = request.own
        subjects = [cell[0] for cell in request.limits if cell in own and cell[1] == marker.args[0]]
    metafunc.parametrize("sae_id", subjects, scope="session", ids=param_id)


@pytest.hookimpl(trylast=True)  # WHY: pytest reorders items by SAE first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the items of the gate by check, so that pytest prints a line per check, and move the timing to the end."""
    in_gate = [i for i, item in enumerate(items) if item.nodeid.startswith(GATE_ID)]
    files = {file: i for i, file in enumerate(dict.fromkeys(map(_file, sorted(items[i].nodeid for i in in_gate))))}
    grouped = sorted((items[i] for i in in_gate), key=lambda item: files[_file(item.nodeid)])
    for i, item in zip(in_gate, grouped, strict=True):  # the user's own tests keep their places
        items[i] = item
    # WHY: benchmarks run last, because each stores the values that the checks have measured before
    items.sort(key=_is_timing)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)  # WHY: pytest then reports what was collected, and with it the commits
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which checks are selected, and whether SAEs are timed."""
    state = session.config.stash.get(RUN_STATE, None)
    if state is not None:
        state.selected |= {c for item in session.items if _is_check(item) and (c := cell_in_nodeid(item.nodeid))}
        _pin_texts(session)
        if outputs.times_saes(session.config) and any(map(_is_timing, session.items)):
            outputs.write_benchmark(session.config)


def _pin_texts(session: pytest.Session) -> None:
    """Pin the texts that the selected checks need. Under xdist the controller has pinned all, the same for all."""
    config = session.config
    if outputs.is_under_xdist(config) or config.getoption("collectonly"):
        return
    request, cells = config.stash[REQUEST], config.stash[RUN_STATE].selected
    try:
        pinned = settle.pin_texts(request, cells, times_saes=any(map(_is_timing, session.items)))
    except errors.HubError as problem:
        raise pytest.UsageError(str(problem)) from None
    config.stash[REQUEST] = pinned


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Name the commits of the texts that were pinned after the header."""
    if (request := config.stash.get(REQUEST, None)) is None:
        return []
    texts = [source for source in request.plan.texts.values() if source is not None and source.dataset is not None]
    return [] if outputs.is_under_xdist(config) else [f"sae-checks: pinned {source.name}" for source in texts]


def _is_check(item: pytest.Item) -> bool:
    """Whether *item* is a check of the gate."""
    return item.get_closest_marker("sae_check") is not None


def _is_timing(item: pytest.Item) -> bool:
    """Whether *item* times an SAE."""
    return item.nodeid.startswith(f"{GATE_ID}{_SPEED_FILE}")


def _is_in_gate(path: Path) -> bool:
    """Whether *path* is a test file of the gate."""
    return path.parent == GATE and path.name.startswith("test_")


def _gate_module(path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """The module of a file of the gate, with a node id that begins with GATE_ID."""
    # WHY: node ids are keys in JUnit files and benchmark histories, so they do not depend on where the package is
    return GateModule.from_parent(parent, path=path, nodeid=f"{GATE_ID}{path.name}")
