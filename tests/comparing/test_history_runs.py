"""A history as a list of runs: the good ones whatever lies beside them, and every other file by its name."""

import json
import threading

import histories
import pytest

from sae_checks import errors
from sae_checks.comparing.history import runs, store
from sae_checks.record import record


@pytest.fixture
def where(tmp_path):
    """A history of three runs of one release and one of another."""
    found = store.open_history(str(tmp_path / "history"))
    for day in (2, 0, 1):
        store.add(histories.run(day=day, exit_status=day), found)
    store.add(histories.run(histories.without_values(), release="other"), found)
    return found


def month(where, release="demo"):
    """The folder of that release's only month."""
    from pathlib import Path

    (folder,) = Path(where.root, "v1", release).iterdir()
    return folder


def test_runs_are_listed_by_time(where):
    """With what they came to, without their numbers."""
    heads, unreadable = runs.summaries(where, "demo")
    assert unreadable == ()
    assert [head.exit_status for head in heads] == [0, 1, 2]
    assert dict(heads[0].counts) == {**dict.fromkeys(runs.OUTCOMES, 0), "passed": 1}
    assert [head.release for head in runs.summaries(where)[0]].count("other") == 1
    (other,), _ = runs.summaries(where, "other")
    assert dict(other.counts)["not_measured"] == 1


def test_a_run_has_its_numbers(where):
    """All but the columns that no series needs."""
    found, unreadable = runs.load_runs(where, "demo")
    assert unreadable == ()
    assert [run.record.exit_status for run in found] == [0, 1, 2]
    assert all(run.record.results == (histories.ce_loss(),) for run in found)


def test_records_are_made_in_one_thread(where, monkeypatch):
    """Files are read at once; msgspec crashes when several threads show it a type for the first time."""
    threads = []
    from_json = record.from_json

    def watched(*args, **kwargs):
        threads.append(threading.current_thread())
        return from_json(*args, **kwargs)

    monkeypatch.setattr(record, "from_json", watched)
    runs.summaries(where)
    runs.load_runs(where, "demo")
    assert set(threads) == {threading.main_thread()}


SPOILT = {
    "nothing": lambda _: "",
    "half of it": lambda text: text[: len(text) // 2],
    "no object": lambda _: "[]",
    "another schema": lambda text: text.replace('"schema": 4', '"schema": 99'),
    "no JSON": lambda text: text.replace('"wall_s": 1.0', '"wall_s": NaN'),
    "no results": lambda text: json.dumps({**json.loads(text), "results": 1}),
    "no outcome": lambda text: text.replace('"outcome": "passed"', '"outcome": "perfect"'),
    "another release": lambda text: text.replace('"name": "demo"', '"name": "a friend\'s"'),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("read", [runs.summaries, runs.load_runs], ids=["heads", "runs"])
def test_a_spoilt_file_is_named_and_hides_no_other(where, spoil, read):
    """However it is spoilt: two of three runs, and the path of the third."""
    path = sorted(month(where).iterdir())[1]
    path.write_text(spoil(path.read_text()))
    found, unreadable = read(where, "demo")
    assert len(found) == 2
    (bad,) = unreadable
    assert bad.path.endswith(path.name)
    assert path.name in bad.problem


def test_no_text_is_no_record(where):
    """Bytes that are no UTF-8."""
    path = sorted(month(where).iterdir())[1]
    path.write_bytes(b"\xff\xfe{")
    found, (bad,) = runs.summaries(where, "demo")
    assert len(found) == 2
    assert path.name in bad.problem


def test_a_run_is_found_by_its_file_or_id(where, tmp_path):
    """A path, a whole id, its beginning or its end; several, or none, is told with those that there are."""
    path, *_ = sorted(month(where).iterdir())
    by_path = runs.find_run(str(path), None)
    assert by_path.record == histories.run()
    url = str(tmp_path / "history")
    for asked in (path.stem, path.stem[:8], path.stem[-6:]):
        if asked == path.stem[:8]:  # the run of the other release began then, too
            with pytest.raises(errors.UsageError, match="no run"):
                runs.find_run(asked, url)
        else:
            assert runs.find_run(asked, url) == by_path
    for asked, at in (("zzz", url), ("", url), ("zzz", None)):
        with pytest.raises(errors.UsageError, match="no run"):
            runs.find_run(asked, at)
