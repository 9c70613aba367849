"""Records of shards -> one record: the union where they are of one run, refused where they are not."""

import subprocess
import sys
from dataclasses import replace

import pytest
from builders import estimate, limit
from hypothesis import given
from hypothesis import strategies as st

from sae_checks import errors
from sae_checks.commands import main
from sae_checks.plugin.fixtures import Judgement
from sae_checks.provenance import Package
from sae_checks.record import merging, record, run_verdict
from sae_checks.record.results import Record, ReleaseFacts, Result

SAES = ("a", "b", "c")
OUTCOMES = ("passed", "failed", "inconclusive", "not_measured", "reported", "error")


@pytest.fixture
def whole(run):
    """A record of three SAEs."""
    (of_a,) = run.results
    rows = []
    for i, sae_id in enumerate(SAES):
        made_of = replace(of_a.provenance, sae=replace(of_a.provenance.sae, sae_id=sae_id))
        rows.append(replace(of_a, sae_id=sae_id, provenance=made_of, estimates=(estimate("ce_increase", 0.1 * i),)))
        rows.append(replace(rows[-1], check="sparsity", limit=None, outcome="not_measured", reason="no", estimates=()))
    asked = (("release", "r"), ("shard", None), ("profile", "release"), ("out", None), ("baseline", None))
    asked += (("memory_gib", None),)
    return replace(run, release=replace(run.release, sae_ids=SAES), results=tuple(rows), options=asked)


def dealt(whole, n):
    """*whole* as *n* shards would have written it."""
    found = []
    for i in range(n):
        shard = f"{i + 1}/{n}"
        rows = [
            r
            if r.sae_id in SAES[i::n]
            else Result(
                sae_id=r.sae_id,
                check=r.check,
                outcome="not_measured",
                reason=run_verdict.of_other_shard(shard),
                limit=r.limit,
            )
            for r in whole.results
        ]
        asked = dict(whole.options) | {"shard": shard, "out": f"{i}", "memory_gib": f"{i}.5"}
        found.append((f"{i}.json", replace(whole, results=tuple(rows), options=tuple(asked.items()))))
    return found


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_union_is_the_whole(whole, n):
    """What the shards of a record say together is what it says, in any order, but for the time spent."""
    parts = dealt(whole, n)
    for order in (parts, parts[::-1]):
        merged = merging.merge(order)
        exit_status = 0 if merging.verdict_on(whole, ["whole.json"]) is None else 1
        assert merged == replace(whole, wall_s=n * whole.wall_s, exit_status=exit_status)
        for field in ("results", "verdict"):
            assert record.to_json(merged)[field] == record.to_json(whole)[field]


def test_a_missing_shard_is_named(whole):
    """Without one of the records nothing is written, and its checks are named."""
    parts = dealt(whole, 3)
    with pytest.raises(errors.RecordError, match=r"2 check[^\0]*none that has ce_loss of b, sparsity of b"):
        merging.merge([parts[0], parts[2]])
    _, first = parts[0]
    with pytest.raises(errors.RecordError, match="none that has"):
        merging.merge([("0.json", first), ("again.json", first)])


def _other_limit(part):
    rows = [replace(r, limit=limit(value=9.0)) if r.limit is not None else r for r in part.results]
    return replace(part, results=tuple(rows))


def _other_provenance(part, **change):
    rows = [
        r
        if r.provenance is None
        else replace(r, provenance=replace(r.provenance, **{k: f(r) for k, f in change.items()}))
        for r in part.results
    ]
    return replace(part, results=tuple(rows))


CHANGES = {
    "the release's name": lambda part: replace(part, release=replace(part.release, name="other")),
    "the release's source": lambda part: replace(part, release=replace(part.release, source="other")),
    "the release's revision": lambda part: replace(part, release=replace(part.release, revision="0" * 40)),
    "the release's sae_ids": lambda part: replace(part, release=replace(part.release, sae_ids=("a",))),
    "the option profile": lambda part: replace(
        part, options=tuple((dict(part.options) | {"profile": "smoke"}).items())
    ),
    "the option more": lambda part: replace(part, options=(*part.options, ("more", 1))),
    "the number of shards": lambda part: replace(part, options=tuple((dict(part.options) | {"shard": "1/4"}).items())),
    "the version of torch": lambda part: replace(
        part, software=tuple(Package(name=p.name, version="0") if p.name == "torch" else p for p in part.software)
    ),
    "the list of checks": lambda part: replace(part, results=part.results[1:]),
    "the limits of ce_loss": _other_limit,
    "the model model": lambda part: _other_provenance(
        part, model=lambda r: replace(r.provenance.model, dtype="float16")
    ),
    "the corpus text.jsonl": lambda part: _other_provenance(
        part, corpus=lambda r: replace(r.provenance.corpus, fingerprint="1" * 64)
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_not_of_one_run_is_refused(whole, what):
    """Each of these is said by name, and which record it is."""
    first, (source, second) = dealt(whole, 2)
    with pytest.raises(errors.RecordError, match=f"{source} is not of the same run as the first record: {what}"):
        merging.merge([first, (source, CHANGES[what](second))])


def test_a_corpus_that_was_read_whole_has_one_hash(whole):
    """Other rows are seen although another number of sequences was measured; where more was left to read, they may."""
    first, (source, second) = dealt(whole, 2)

    def of(n_listed, sha256, n_sequences):
        return lambda r: replace(r.provenance.corpus, n_listed=n_listed, sha256=sha256, n_sequences=n_sequences)

    parts = [("0.json", _other_provenance(first[1], corpus=of(9, "0" * 64, 5)))]
    with pytest.raises(errors.RecordError, match=r"the corpus text\.jsonl"):
        merging.merge([*parts, (source, _other_provenance(second, corpus=of(9, "1" * 64, 6)))])
    parts = [("0.json", _other_provenance(first[1], corpus=of(None, "0" * 64, 5)))]
    assert merging.merge([*parts, (source, _other_provenance(second, corpus=of(None, "1" * 64, 6)))])


def test_the_same_cell_twice_must_say_the_same(whole):
    """A shard that ran twice is no harm; one that came out differently is refused, with both values."""
    first, second = dealt(whole, 2)
    again = ("again.json", first[1])
    assert merging.merge([first, second, again]).results == whole.results
    rows = list(first[1].results)
    moved = replace(rows[0], estimates=(estimate("ce_increase", 0.001),))
    for changed, said in ((moved, "0.001"), (replace(rows[0], outcome="failed"), "failed")):
        other = ("again.json", replace(first[1], results=(changed, *rows[1:])))
        with pytest.raises(errors.RecordError, match=r"again\.json.*ce_loss of a differs") as caught:
            merging.merge([first, second, other])
        assert said in str(caught.value)


def _outcomes(whole, of, outcome, reason="so"):
    rows = [replace(r, outcome=outcome, reason=reason) if (r.sae_id, r.check) == of else r for r in whole.results]
    return replace(whole, results=tuple(rows))


@pytest.mark.parametrize(("outcome", "profile"), [(o, p) for o in OUTCOMES for p in ("smoke", "release")])
def test_a_check_is_red_where_its_test_is(outcome, profile):
    """`is_red` says what a test of the gate does; an error never gets that far."""
    result = Result(sae_id="a", check="ce_loss", outcome=outcome, reason="so", limit=None)
    try:
        Judgement(result=result, profile=profile).enforce()
        is_red = False
    except pytest.skip.Exception:
        is_red = False
    except pytest.fail.Exception:
        is_red = True
    assert run_verdict.is_red(outcome, profile=profile) is is_red


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("passed", None),
        ("failed", "did not pass"),
        ("error", "did not pass"),
        ("inconclusive", "did not pass"),
        ("not_measured", "got no verdict"),
        ("reported", "got no verdict"),
    ],
)
def test_the_verdict_on_the_whole(whole, outcome, said):
    """One SAE whose only verdict is that: green, red by its check, or red since it was not judged."""
    merged = merging.merge(dealt(_outcomes(whole, ("b", "ce_loss"), outcome), 2))
    found = merging.verdict_on(merged, ["0.json"])
    assert (found is None) == (said is None)
    assert said is None or said in found


def test_what_was_not_reached_is_red_and_what_was_not_selected_is_not(whole):
    """An interrupted shard leaves no pass behind; a check that was deselected is as asked, unless nothing is left."""
    for reason, said in ((run_verdict.NOT_REACHED, "did not pass"), (run_verdict.NOT_SELECTED, None)):
        merged = merging.merge(dealt(_outcomes(whole, ("b", "sparsity"), "not_measured", reason), 2))
        found = merging.verdict_on(merged, ["0.json"])
        assert (found is None) if said is None else (said in found)
    nothing = whole
    for cell in ((s, c) for s in SAES for c in ("ce_loss", "sparsity")):
        nothing = _outcomes(nothing, cell, "not_measured", run_verdict.NOT_SELECTED)
    assert "no check of the release ran" in merging.verdict_on(nothing, ["0.json"])


def test_a_baseline_with_which_nothing_was_compared_is_red(whole):
    """As in a session."""
    asked = tuple((dict(whole.options) | {"baseline": "before.json"}).items())
    row = replace(whole.results[0], sae_id="a-ce_loss", check="no_regression", outcome="not_measured", provenance=None)
    merged = replace(whole, options=asked, results=(*whole.results, row))
    assert "nothing was compared" in merging.verdict_on(merged, ["0.json"])
    passed = replace(merged, results=(*whole.results, replace(row, outcome="passed")))
    assert merging.verdict_on(passed, ["0.json"]) is None


@given(st.sets(st.sampled_from(range(6))), st.integers(1, 3))
def test_no_subset_of_shards_passes_for_the_whole(given_cells, n):
    """Whatever is left out of the records is missed."""
    rows = tuple(
        Result(sae_id=sae_id, check=check, outcome="passed", reason="good", limit=None)
        for sae_id in SAES
        for check in ("ce_loss", "sparsity")
    )
    blank = ReleaseFacts(name="r", source="r", revision=None, sae_ids=SAES)
    whole = Record(
        started="now", wall_s=1.0, release=blank, options=(("shard", None),), software=(), platform="", results=rows
    )
    parts = [part for i, part in enumerate(dealt(whole, n)) if i in given_cells]
    if len(parts) == n:
        assert merging.merge(parts).results == rows
    elif parts:
        with pytest.raises(errors.RecordError, match="in none of the records"):
            merging.merge(parts)


@pytest.fixture
def files(whole, tmp_path):
    """The shards of *whole* on disk."""

    def written(of=whole, n=2):
        for name, part in dealt(of, n):
            record.write(part, tmp_path / name)
        return [str(tmp_path / f"{i}.json") for i in range(n)]

    return written


def test_the_command_writes_the_record_and_says_the_verdict(files, whole, tmp_path, capsys):
    """Green is 0, with the table; red is 1, with the complaint; the record is there both times."""
    out = tmp_path / "all.json"
    assert main.main(["merge", *files(), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert told.endswith("r: PASSED   3 SAEs   (3 ok, 3 not measured)\n")
    assert record.read(out).results == whole.results
    out.unlink()
    assert main.main(["merge", *files(_outcomes(whole, ("b", "ce_loss"), "failed")), "--out", str(out)]) == 1
    told = capsys.readouterr().out
    assert "FAILED: ce_loss so (b)" in told
    assert "1 check(s) did not pass" in told
    assert {r.outcome for r in record.read(out).results} == {"passed", "failed", "not_measured"}


def test_the_command_writes_nothing_that_is_not_whole(files, tmp_path, capsys):
    """A shard that is missing, or is no record: 1, the names, and no file."""
    out, (first, _) = tmp_path / "all.json", files()
    assert main.main(["merge", first, "--out", str(out)]) == 1
    assert "ce_loss of b" in capsys.readouterr().err
    for bad in (tmp_path / "none.json", tmp_path):
        assert main.main(["merge", first, str(bad), "--out", str(out)]) == 1
        assert "is not a run record" in capsys.readouterr().err
    assert not out.exists()
    assert main.main(["merge", first, "--out", str(tmp_path / "none" / "all.json")]) == 4
    assert "--out" in capsys.readouterr().err


@pytest.mark.slow
def test_merging_imports_nothing_heavy(files, tmp_path):
    """A laptop without torch can do it."""
    script = (
        "import sys\nfrom sae_checks.commands import main as cli\n"
        f"code = cli.main(['merge', *{files()!r}, '--out', {str(tmp_path / 'all.json')!r}])\n"
        "heavy = {'torch', 'sae_lens', 'transformers', 'transformer_lens', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
