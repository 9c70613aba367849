"""A release larger than memory: measured in groups, to the same numbers, and never more of it in memory than asked."""

import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from builders import cells
from hypothesis import given
from hypothesis import strategies as st
from judged import judge

from sae_checks import checks, errors
from sae_checks.diagnosis import not_diagnosed
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.run.settle import settle
from sae_checks.run.table import ROWS
from sae_checks.saes import free_memory, loading, sae
from sae_checks.saes.lazy_weights import LazySae, WeightCache

STUDIES = tuple(row.check.name for row in ROWS if row.is_study)

CPU = torch.device("cpu")


class Counted:
    """In place of weights: how many bytes of them there are at once."""

    def __init__(self, n_bytes, held):
        self.files, self._n_bytes, self._held = {}, n_bytes, held
        held.append(n_bytes)
        weakref.finalize(self, held.remove, n_bytes)


def lazy(n_bytes, cache, held, problem=None):
    """An SAE of so many bytes, whose loading is counted in `n_loads`."""
    described = SimpleNamespace(
        sae_id=f"{n_bytes} bytes",
        hook="blocks.0.hook_resid_pre",
        hook_out="blocks.0.hook_resid_pre",
        n_training_context_tokens=None,
        d_in=1,
        d_out=1,
        d_sae=0,
    )
    one = LazySae(described, cache, device=CPU, center=False, head_slice=slice(0, None))
    one.n_bytes, one.n_loads = n_bytes, 0

    def load():
        one.n_loads += 1
        if problem is not None:
            raise problem
        return Counted(n_bytes, held)

    one.load = load
    return one


sizes = st.lists(st.integers(1, 10), min_size=1, max_size=12)


@given(sizes, st.integers(1, 40))
def test_groups_are_as_few_as_fit(of, n_bytes):
    """In their order, each within the room unless one alone is not, and no two beside each other would fit together."""
    cache = WeightCache(lambda: n_bytes)
    saes = [lazy(n, cache, []) for n in of]
    groups = cache.groups_that_fit(saes)
    assert [one for group in groups for one in group] == saes
    totals = [sum(one.n_bytes for one in group) for group in groups]
    assert all(total <= n_bytes or len(group) == 1 for total, group in zip(totals, groups, strict=True))
    starts = [group[0].n_bytes for group in groups[1:]]
    assert all(total + start > n_bytes for total, start in zip(totals, starts, strict=False))


@given(sizes, st.integers(1, 40), st.data())
def test_no_more_is_held_than_there_is_room_for(of, n_bytes, data):
    """Whatever is asked in whatever order; one that is too large is alone. What was just asked is not loaded again."""
    cache, held = WeightCache(lambda: n_bytes), []
    saes = [lazy(n, cache, held) for n in of]
    for i in data.draw(st.lists(st.integers(0, len(of) - 1), max_size=20)):
        before = saes[i].n_loads
        cache.get(saes[i])
        cache.get(saes[i])
        assert saes[i].n_loads <= before + 1
        assert sum(held) <= max(n_bytes, of[i])
    assert sum(of) > n_bytes or all(one.n_loads <= 1 for one in saes)


def test_the_least_recently_used_makes_room():
    """Not the one that was loaded first."""
    cache = WeightCache(lambda: 2)
    a, b, c = (lazy(1, cache, []) for _ in range(3))
    for one in (a, b, a, c, a, b):
        cache.get(one)
    assert [one.n_loads for one in (a, b, c)] == [1, 2, 1]


def test_what_cannot_be_loaded_is_tried_once():
    """The same error each time, also when it was to be loaded ahead, and the others are there."""
    cache, problem = WeightCache(lambda: 10), errors.SaeError("it is broken")
    good, bad = lazy(1, cache, []), lazy(2, cache, [], problem)
    cache.start_loading([bad, good])
    cache.finish_loading()
    for _ in range(2):
        with pytest.raises(errors.SaeError, match="it is broken") as raised:
            bad.reconstruct(torch.zeros(1, 1, 1))
        assert raised.value is problem
    cache.start_loading([bad, good])
    assert (bad.can_be_loaded(), good.can_be_loaded(), bad.n_loads, good.n_loads) == (False, True, 1, 1)


def test_what_has_not_begun_is_given_up():
    """A run that is interrupted, or has no use for them, does not wait for all the SAEs that were to come."""
    cache, held, begun, go_on = WeightCache(lambda: 10), [], threading.Event(), threading.Event()
    first, second = lazy(1, cache, held), lazy(2, cache, held)
    load = first.load
    first.load = lambda: (begun.set(), go_on.wait(60)) and load()
    cache.start_loading([first, second])
    assert begun.wait(60)
    threading.Timer(0.2, go_on.set).start()
    cache.finish_loading()
    assert (first.n_loads, second.n_loads) == (1, 0)
    second.loaded()
    assert (first.n_loads, second.n_loads) == (1, 1)


def test_the_next_is_loaded_while_the_first_is_used():
    """Nobody has asked for it yet."""
    cache, begun = WeightCache(lambda: 10), threading.Event()
    first, second = lazy(1, cache, []), lazy(2, cache, [])
    load = second.load
    second.load = lambda: begun.set() or load()
    cache.start_loading([first, second])
    first.loaded()
    assert begun.wait(60)
    cache.finish_loading()
    assert (first.n_loads, second.n_loads) == (1, 1)


@pytest.fixture
def demo_sae(tmp_path, monkeypatch):
    """An SAE of the demo on a cache with room for nothing else, and the file that it is said to be made from."""
    found = settle(Options(release="demo", device="cpu")).plan.release.saes[0]
    file = tmp_path / "weights"
    file.write_bytes(b"123")
    loaded = SimpleNamespace(files={"weights": file})
    monkeypatch.setattr(sae, "load", lambda *_, **__: loaded)
    return LazySae(found, WeightCache(lambda: 1), device=CPU, center=False, head_slice=slice(0, None)), file


def test_files_that_change_meanwhile_are_an_error(demo_sae):
    """An SAE that is loaded again must be the one that it was."""
    one, file = demo_sae
    one.load()
    one.load()
    file.write_bytes(b"1234")
    with pytest.raises(errors.SaeError, match="have changed while"):
        one.load()
    file.unlink()
    with pytest.raises(errors.SaeError, match="have changed while"):
        one.load()


def test_memory_that_was_asked_is_what_there_is(monkeypatch):
    """In GiB; unasked it is half of what is free, divided among the workers."""
    assert free_memory.bytes_for_saes(1.5, CPU) == 3 * 2**29
    monkeypatch.setattr(free_memory, "free_bytes", lambda _: 1000)
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    assert free_memory.bytes_for_saes(None, CPU) == 500
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "4")
    assert (free_memory.bytes_for_saes(None, CPU), free_memory.bytes_for_saes(1.0, CPU)) == (125, 2**30)


def test_a_container_has_what_it_may_use(tmp_path, monkeypatch):
    """Less than the machine has; files that are cached give way. Without a limit, or none of it, the machine's."""
    monkeypatch.setattr(free_memory, "_CGROUP", tmp_path)
    machine = free_memory.free_bytes(CPU)
    assert machine > 0
    for name, text in (("max", "9000\n"), ("current", "5000\n"), ("stat", "anon 10\ninactive_file 700\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory.free_bytes(CPU) == 4700
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory.free_bytes(CPU) > 2**20


SUBJECTS = ("blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.3.hook_resid_post")


@pytest.fixture(scope="module")
def judged():
    """By cell, the results of a run of the demo with so much memory for SAEs, and which SAEs were loaded, in turn."""

    def run(memory_gib):
        asked = settle(
            Options(
                release="demo",
                sae_ids=SUBJECTS,
                device="cpu",
                n_sequences=32,
                n_study_sequences=16,
                memory_gib=memory_gib,
            )
        )
        loads, alive, most = [], [], [0]
        load = loading.load

        def counted(described, device):
            found, files = load(described, device)
            loads.append(described.sae_id)
            alive.append(described.sae_id)
            weakref.finalize(found, alive.remove, described.sae_id)
            most[0] = max(most[0], len(alive))
            return found, files

        loading.load = counted
        try:
            executor = LocalExecutor(asked.plan)
            executor.diagnose = lambda *_, **__: not_diagnosed("it loads the SAE again")
            of_all = cells(SUBJECTS, checks.CE_LOSS, checks.LONG_CONTEXT, checks.SPARSITY, checks.LAMBADA)
            results = {cell: judge(executor, asked, cell[0], checks.named(cell[1]), of_all) for cell in of_all}
            of_passes = list(loads)
            of_studies = [cell for cell in asked.limits if cell[1] in STUDIES or cell[1] == "distinct"]
            results |= {cell: judge(executor, asked, cell[0], checks.named(cell[1]), of_studies) for cell in of_studies}
        finally:
            loading.load = load
        return SimpleNamespace(results=results, loads=of_passes, n_most=most[0])

    return run


def test_a_release_larger_than_memory_is_measured_to_the_same_numbers(judged):
    """One SAE at a time: once for the text, once for Lambada; studies, which need several, load them as they go."""
    plenty, little = judged(None), judged(1e-9)
    assert plenty.loads == list(SUBJECTS)
    assert little.loads == [*SUBJECTS, *SUBJECTS]
    assert (plenty.n_most, little.n_most) == (3, 1)
    assert list(little.results) == list(plenty.results)
    for cell, result in plenty.results.items():
        assert result.outcome not in ("error", "failed"), (cell, result.reason)
        assert little.results[cell] == result, cell


def test_a_broken_one_leaves_its_group_alone(judged, monkeypatch):
    """Its own checks are errors with its problem; the others are what they are without it."""
    sound = judged(None).results
    load = loading.load

    def broken(described, device):
        if described.sae_id == SUBJECTS[1]:
            raise errors.SaeError("its weights are bad")
        return load(described, device)

    monkeypatch.setattr(loading, "load", broken)
    for memory_gib in (None, 1e-9):
        found = judged(memory_gib).results
        for cell, result in found.items():
            if cell[0] == SUBJECTS[1] or cell[0] not in SUBJECTS:  # itself, and the stack that it is of
                assert result.outcome in ("error", "not_measured"), cell
                assert result.outcome == "not_measured" or "its weights are bad" in result.reason
            elif cell[1] not in STUDIES:
                assert result == sound[cell]
            else:
                assert result.outcome != "error", result.reason


def test_the_number_of_workers_is_where_xdist_says_it():
    """A rename would give every worker all of the memory."""
    xdist = pytest.importorskip("xdist.remote")
    assert "PYTEST_XDIST_WORKER_COUNT" in Path(xdist.__file__).read_text(encoding="utf-8")
