"""The last green run: which run may be it, who takes its place, and how a person accepts a worse one."""

from dataclasses import replace

import histories
import pytest

from sae_checks import errors
from sae_checks.comparing import last_green
from sae_checks.comparing.history import store
from sae_checks.plan.options import Options
from sae_checks.record import record, run_verdict

NAME = "demo"


def run(day, *results, sae_ids="", shard=None, **rest):
    found = histories.run(*(results or (histories.ce_loss(),)), day=day, release=NAME, **{"sae_ids": ("a",), **rest})
    return replace(found, options=(*found.options, ("sae_ids", sae_ids), ("shard", shard)))


def without(reason):
    return histories.without_values("lambada", reason=reason)


NOT_LAST = {
    "red": run(1, histories.ce_loss(outcome="failed"), exit_status=1),
    "undecided": run(1, histories.ce_loss(outcome="inconclusive")),
    "an error of pytest": run(1, exit_status=3),
    "interrupted": run(1, exit_status=2),
    "-k": run(1, histories.ce_loss(), without(run_verdict.NOT_SELECTED)),
    "-x": run(1, histories.ce_loss(), without(run_verdict.NOT_REACHED)),
    "another --sae-id": run(1, sae_ids="blocks.0*"),
    "a shard": run(1, shard="1/2"),
}


def of(folder, **options):
    return last_green.find(Options(release="r", **options, out=folder), NAME)


@pytest.mark.parametrize("what", NOT_LAST)
def test_only_a_whole_green_run_takes_the_place(tmp_path, what):
    """Not in the folder of --sae-out, be it as the record that was written last; not in the history."""
    first, other, url = run(0), NOT_LAST[what], str(tmp_path / "history")
    assert last_green.keep(first, tmp_path) == tmp_path / "last-green.json"
    assert last_green.keep(other, tmp_path) is None
    record.write(other, tmp_path / "record.json")
    assert of(tmp_path).run == first
    for each in (first, other):
        store.add(each, store.prepare(url))
    assert last_green.find(Options(release="r", history=url), NAME).run == first


def test_the_later_of_folder_and_history_is_the_last(tmp_path):
    """Whichever has it; a file that is no record does not stop it."""
    url = str(tmp_path / "history")
    last_green.keep(run(1), tmp_path)
    store.add(run(0), store.prepare(url))
    assert of(tmp_path, history=url).where == str(tmp_path / "last-green.json")
    run_id = store.add(run(2), store.prepare(url))
    next((tmp_path / "history").rglob(f"{run_id}.json")).with_name("20990101T000000Z_0123456789abcdef.json").write_text(
        "{"
    )
    found = of(tmp_path, history=url)
    assert (found.run, found.where) == (run(2), f"{run_id} in {url}")


def test_a_part_is_compared_with_the_same_part_or_the_whole(tmp_path):
    """A run of --sae-id finds a run of the whole, and its own part; the whole takes the place of a part."""
    part = run(1, sae_ids="a*")
    last_green.keep(part, tmp_path)
    assert of(tmp_path, sae_ids=("a*",)).run == part
    assert of(tmp_path) is None
    last_green.keep(run(2), tmp_path)
    assert of(tmp_path, sae_ids=("a*",)).run == of(tmp_path).run == run(2)


def test_a_person_accepts_a_worse_run_with_a_reason(tmp_path):
    """Then it is the last one, and says why; a run that left something out is not accepted, nor one without reason."""
    last_green.keep(run(0), tmp_path)
    worse = run(1, histories.ce_loss(outcome="failed"), exit_status=1)
    last_green.accept(worse, tmp_path, " cleaner\ntext ")
    found = of(tmp_path).run
    assert found.results == worse.results
    assert last_green.reason_of(found) == r"cleaner\ntext"
    url = str(tmp_path / "history")
    for each in (run(0), worse, found):
        store.add(each, store.prepare(url))
    assert last_green.find(Options(release="r", history=url), NAME).run == found, (
        "kept in a history it is the last there"
    )
    for other, reason in ((NOT_LAST["-k"], "why"), (NOT_LAST["-x"], "why"), (worse, " ")):
        with pytest.raises(errors.UsageError, match="cannot be the baseline"):
            last_green.accept(other, tmp_path, reason)
    broken = run(1, histories.ce_loss(), histories.without_values("lambada", "error"), exit_status=1)
    with pytest.raises(errors.UsageError, match="without a value: lambada of a"):
        last_green.accept(broken, tmp_path, "why")
    assert of(tmp_path).run == found
