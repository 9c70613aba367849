"""A run on texts of which each document, passage and query comes several times."""

pytest_plugins = ["pytester"]

KINDS = {"corpus": "text", "lambada": "lambada", "cbt": "cbt"}


def repeated(path, to, n):
    """The lines of a .jsonl file, each *n* times."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    to.write_text("".join(line for line in lines for _ in range(n)), encoding="utf-8")
    return to


def found(run):
    """What each check measured and concluded."""
    return {
        cell: (r.outcome, r.judged, r.decision, r.estimates, r.paired_sample, r.curves)
        for cell, r in run.results.items()
    }


def test_copies_change_no_verdict_and_no_value(gate, tiny, pytester):
    """Every check has the same values on the same tokens; the record and the end of the run count the copies."""
    once = gate()
    expected = found(once)  # now: the next run writes into the same folder
    options = [f"--sae-{kind}={repeated(getattr(tiny, kind), pytester.path / f'{kind}.jsonl', 4)}" for kind in KINDS]
    again = gate(*options)
    assert found(again) == expected
    assert again.record.verdict == once.record.verdict == "passed"
    before, after = (
        {r.provenance.corpus.kind: r.provenance.corpus for r in run.record.results if r.provenance}
        for run in (once, again)
    )
    for kind in KINDS.values():
        assert (before[kind].n_copies, after[kind].n_copies) == (0, 3 * before[kind].n_listed)
        assert after[kind].n_listed == before[kind].n_listed
        assert after[kind].warnings == before[kind].warnings
    assert f"lambada: {after['lambada'].n_copies} passages left out, since they repeat others" in again.text
    assert "left out" not in once.text
    (warning,) = before["text"].warnings  # the tiny release's text is the tiny model's own
    assert warning.startswith("as probable as what the model would write")
    assert "text: as probable as what the model would write" in once.text
