"""Where runs are kept: nothing is lost, nothing is rewritten, and what is half written is no record."""

import multiprocessing
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from string import ascii_letters, digits

import fsspec
import histories
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import HOSTILE, hostile_names, records

from sae_checks import errors
from sae_checks.comparing.history import store
from sae_checks.record import record

times = st.datetimes().map(lambda when: when.isoformat())
few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def at(kind, tmp_path):
    """An empty history of its own, on disk or in memory."""
    name = uuid.uuid4().hex
    return store.open_history(f"memory://{name}/history" if kind == "memory" else str(tmp_path / name))


def kept(where, release=None):
    """Every record there, read back."""
    return [record.loads(store.read_text(entry, where), entry.name) for entry in store.entries(where, release)]


@pytest.mark.parametrize("kind", ["memory", "disk"])
@given(run=records(), started=times)
@few
def test_what_is_kept_is_read_back(kind, tmp_path, run, started):
    """Whatever the release is called and whatever was measured: the same record, found by its release alone."""
    run, where = replace(run, started=started), at(kind, tmp_path)
    run_id = store.add(run, where)
    (entry,) = store.entries(where)
    assert entry.run_id == run_id
    assert kept(where) == kept(where, run.release.name) == [run]
    assert store.entries(where, run.release.name + "x") == ()


def test_a_run_lies_by_release_and_month(tmp_path):
    """`v1/<release>/<YYYY-MM>/<utc>_<id>.json`, in UTC wherever it ran; nothing else is left there."""
    where = store.open_history(str(tmp_path))
    run_id = store.add(replace(histories.run(release="org/saes"), started="2026-03-01T00:30:00+02:00"), where)
    (path,) = (p for p in tmp_path.rglob("*") if p.is_file())
    assert path.relative_to(tmp_path).as_posix() == f"v1/org=2Fsaes/2026-02/{run_id}.json"
    assert run_id.startswith("20260228T223000Z_")
    assert record.read(path).release.name == "org/saes"


@given(hostile_names | st.text(st.characters()), hostile_names | st.text(st.characters()))
def test_a_release_has_one_safe_folder_of_its_own(one, other):
    """Plain ASCII, no separator, neither hidden nor a way up, not too long, and no two releases in one."""
    folder = store.folder_of(one)
    assert set(folder) <= set(ascii_letters + digits + "-_.=")
    assert 0 < len(folder) <= 120
    assert folder[0] != "."
    assert folder[-1] != "."
    assert (folder == store.folder_of(other)) == (one == other)


@pytest.mark.parametrize("name", [*HOSTILE, "a/b", "..", ".", "", "C:\\x", "gpt2-small-res-jb", "ü" * 200])
def test_names_that_have_bitten_others(name, tmp_path):
    """Every one of them is a folder of one level that the disk takes."""
    folder = tmp_path / store.folder_of(name)
    folder.mkdir()
    assert folder.parent == tmp_path
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_a_plain_name_stays_readable():
    """What needs no escape has none."""
    assert store.folder_of("gpt2-small-res-jb_v1.5") == "gpt2-small-res-jb_v1.5"


@given(st.lists(st.sampled_from(["x", "y/z"]), max_size=6), st.lists(st.sampled_from(["x", "y/z"]), max_size=6))
@few
def test_the_union_of_two_histories_is_both(tmp_path, first, second):
    """Copied together, in either order and twice, nothing is lost and nothing is there twice."""
    places = [at("disk", tmp_path) for _ in range(3)]
    for where, releases in zip(places, (first, second), strict=False):
        for day, release in enumerate(releases):
            store.add(histories.run(release=release, day=day), where)
    for source in (places[0], places[1], places[0]):
        if Path(source.root).exists():
            shutil.copytree(source.root, places[2].root, dirs_exist_ok=True)
    ids = [{entry.run_id for entry in store.entries(where)} for where in places]
    assert ids[2] == ids[0] | ids[1]
    assert len(kept(places[2])) == len(first) + len(second)


def _keep_many(url, n):
    where = store.open_history(url)
    run = histories.run()
    for _ in range(n):
        store.add(run, where)


def test_writers_at_once_lose_nothing(tmp_path):
    """Four processes keep runs that started in one second; whoever reads meanwhile meets whole records alone."""
    n_writers, n_each = 4, 12
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_keep_many, args=(str(tmp_path), n_each)) for _ in range(n_writers)]
    for writer in writers:
        writer.start()
    where, n_seen = store.open_history(str(tmp_path)), [0]
    while any(writer.is_alive() for writer in writers):
        n_seen.append(len(kept(where)))  # every one of them is read, or this raises
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert n_seen == sorted(n_seen)
    assert len(kept(where)) == n_writers * n_each
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".json"] == []


def test_what_is_half_written_is_not_looked_at(tmp_path):
    """A writer that died leaves a file under a name that no reader takes for a record's; nor is anything else taken."""
    where = store.open_history(str(tmp_path))
    run_id = store.add(histories.run(), where)
    (month,) = (tmp_path / "v1" / "demo").iterdir()
    for name in (f".{run_id[:-1]}0.part", f"{run_id}.json.part", "notes.json", f".{run_id}.json", f"{run_id}x.json"):
        (month / name).write_text("{")
    (tmp_path / "v1" / "demo" / "plots").mkdir()
    (tmp_path / "v1" / "demo" / "plots" / f"{run_id}.json").write_text("{")
    (tmp_path / "v1" / "a file").write_text("{")
    assert [entry.run_id for entry in store.entries(where)] == [run_id]


class Cutting(MemoryFileSystem):
    """A file system that loses the end of what is moved, and says nothing."""

    protocol = "cutting"
    cachable = False

    def mv(self, path1, path2, **_):
        data = self.cat_file(path1)
        self.pipe_file(path2, data[: len(data) // 2])
        self.rm_file(path1)


class Closed(MemoryFileSystem):
    """A file system without leave to write."""

    protocol = "closed"
    cachable = False

    def pipe_file(self, *_, **__):
        raise PermissionError("no leave for https://user:secret@host")


@pytest.fixture(params=[Cutting, Closed], ids=lambda kind: kind.protocol)
def failing(request):
    """The URL of a place at which nothing is kept."""
    fsspec.register_implementation(request.param.protocol, request.param, clobber=True)
    yield f"{request.param.protocol}://there"
    Cutting.store.clear()


def test_what_is_not_there_afterwards_is_an_error(failing):
    """Whatever the file system answers: what was written is read back, and a loss has a message."""
    with pytest.raises(errors.HistoryError, match="is not in the history"):
        store.add(histories.run(), store.open_history(failing))


class Whole(MemoryFileSystem):
    """A store that shows an object when it is whole, and lets nobody delete."""

    protocol = "s3"
    cachable = False

    def rm_file(self, path):
        raise PermissionError(path)


def test_a_store_of_whole_objects_needs_no_leave_to_delete():
    """There the object is put at once under its name."""
    where = store.History(url="s3://bucket/history", root="bucket/history", files=Whole())
    assert where.shows_whole_objects
    store.add(histories.run(), where)
    assert len(kept(where)) == 1
    Whole.store.clear()


@pytest.mark.parametrize("url", ["nope://x", "absent://bucket/x"])
def test_a_place_that_cannot_be_opened_is_a_mistake_of_whoever_asked(url, monkeypatch):
    """No such protocol, or its package is not installed: said with what to install."""
    known = {"class": "no_such_package.Files", "err": "install no_such_package"}
    monkeypatch.setitem(known_implementations, "absent", known)
    with pytest.raises(errors.UsageError, match="--sae-history"):
        store.open_history(url)


def test_a_file_in_the_way_is_told_before_anything_is_measured(tmp_path):
    """And a folder that is not there is made."""
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.UsageError, match="--sae-history"):
        store.prepare(str(tmp_path / "file"))
    store.prepare(str(tmp_path / "new" / "history"))
    assert (tmp_path / "new" / "history" / "v1").is_dir()


def test_nothing_there_is_no_error_and_makes_nothing(tmp_path):
    """To look is not to write."""
    assert store.entries(store.open_history(str(tmp_path / "none"))) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    """Not an empty history."""
    where = store.open_history(str(tmp_path))

    def refuse(*_, **__):
        raise PermissionError("no leave")

    monkeypatch.setattr(type(where.files), "ls", refuse)
    with pytest.raises(errors.HistoryError, match="cannot be read"):
        store.entries(where)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://user:secret@host/a?sig=secret", "ftp://host/a"),
        ("https://host/a?token=secret", "https://host/a"),
        ("hf://datasets/org/name@main/x", "hf://datasets/org/name@main/x"),
        ("/a/b?c@d", "/a/b?c@d"),
        ("memory://x", "memory://x"),
    ],
)
def test_secrets_of_a_url_are_not_shown(url, shown):
    """User, password and query; a revision is none."""
    assert store.without_secrets(url) == shown


def test_a_run_without_a_time_is_not_kept(tmp_path):
    """It would lie at no place that anybody finds."""
    with pytest.raises(errors.RecordError, match="not a time"):
        store.add(replace(histories.run(), started="yesterday"), store.open_history(str(tmp_path)))
