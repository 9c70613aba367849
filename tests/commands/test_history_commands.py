"""`sae-checks history`, `compare`, `trend`, `export`: what they print, exit with, and do not import."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import histories
import pytest
from histories import OTHER_SHA, ce_loss, counted, run, values

from sae_checks.commands import history, main
from sae_checks.comparing.history import export, store
from sae_checks.comparing.history.compare import State
from sae_checks.judging import accepted_shifts
from sae_checks.plugin.reporting import EXIT_NOT_IN_HISTORY
from sae_checks.record import record

SHIFT = """schema = 1
[[accepted_shift]]
release = "demo"
sae = "a"
measure = "ce_increase"
since = 2026-01-11
reason = "a better text"
"""


@pytest.fixture
def kept(tmp_path):
    """The URL of a history of twelve runs of demo and one of another release."""
    where = store.open_history(str(tmp_path / "history"))
    for day in range(12):
        torch = "2.12.0" if day < 5 else "2.13.0"
        store.add(run(ce_loss(values(seed=day)), counted(), day=day, exit_status=day % 2, torch=torch), where)
    store.add(run(release="org/other"), where)
    return str(tmp_path / "history")


@pytest.fixture
def write(tmp_path):
    """The path of a record."""

    def written(name, *results, **rest):
        path = tmp_path / f"{name}.json"
        record.write(run(*results, **rest), path)
        return str(path)

    return written


def spoil(url, release="demo"):
    """Cut one of the files in two; its name."""
    path = sorted(Path(url, "v1", release).rglob("*.json"))[3]
    path.write_text(path.read_text()[:100])
    return path.name


def test_history_lists_every_run(kept, capsys):
    """Aligned, by time, with outcomes, exit and versions; only one release if asked."""
    assert main.main(["history", kept]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "started", "release", "revision", "passed", "exit", "software"]
    assert len(rows) == 13
    assert all(row[head.index("passed") :].split()[0] in ("1", "2") for row in rows)
    assert main.main(["history", kept, "demo"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert [row[head.index("exit") :].split()[0] for row in rows] == ["0", "1"] * 6
    versions = [row[head.index("software") :] for row in rows]
    assert versions[:2] == ["sae-checks 1.0, torch 2.12.0", "the same"]
    assert versions[5] == "torch 2.12.0 -> 2.13.0"


def test_history_as_json(kept, capsys):
    """With every version of every run."""
    assert main.main(["history", kept, "demo", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["exit_status"] for row in rows] == [0, 1] * 6
    assert rows[0]["outcomes"]["passed"] == 2
    assert rows[0]["software"] == {"sae-checks": "1.0", "torch": "2.12.0"}


@pytest.mark.parametrize("command", [["history"], ["trend"]], ids=lambda command: command[0])
def test_a_spoilt_file_is_named_and_the_others_are_shown(kept, capsys, command):
    """Exit 1, for a trend with a hole in it is not the whole trend."""
    name = spoil(kept)
    assert main.main([*command, kept, "demo"]) == 1
    told = capsys.readouterr()
    assert name in told.err
    assert "1 file(s) of the history are not records" in told.err
    if command == ["history"]:
        assert len(told.out.splitlines()) == 12
    else:
        assert "  11  " in told.out


def test_a_history_of_nothing_else_than_spoilt_files(tmp_path, capsys):
    """It says so, and does not stumble."""
    url = str(tmp_path / "history")
    store.add(run(), store.open_history(url))
    (path,) = Path(url).rglob("*.json")
    path.write_text("{")
    for command in (["history", url], ["trend", url, "demo"], ["history", url, "--json"]):
        assert main.main(command) == 1
        assert path.name in capsys.readouterr().err


def test_what_a_history_does_not_have(kept, tmp_path, capsys):
    """An unknown release is told with those that there are; no history at all likewise; exit 4."""
    for command in (["history", kept, "none"], ["trend", kept, "none"]):
        assert main.main(command) == 4
        told = capsys.readouterr().err
        assert "no run of none" in told
        assert "demo, org/other" in told
    assert main.main(["history", str(tmp_path / "nowhere")]) == 4
    assert main.main(["history", "nope://x"]) == 4
    assert "--sae-history" in capsys.readouterr().err


def test_a_record_is_added_later(tmp_path, write, capsys):
    """What could not be kept when it was made."""
    url = str(tmp_path / "late")
    assert main.main(["history", url, "--keep", write("run")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    (path,) = Path(url).rglob("*.json")
    assert record.read(path) == run()
    assert main.main(["history", url, "--keep", str(tmp_path / "none.json")]) == 4


def test_compare_exits_by_what_it_finds(write, capsys):
    """0 for no worse, 1 for a regression, 3 for what is open, 4 for what is no record."""
    sound = write("sound", ce_loss(), counted())
    worse = write("worse", ce_loss(values(0.2), weights=OTHER_SHA), counted())
    unknown = write("unknown", ce_loss(values(0.11, seed=1), weights=OTHER_SHA), counted())
    less = write("less", counted())
    assert main.main(["compare", sound, sound]) == 0
    out = capsys.readouterr().out
    assert "the same" in out
    assert "not compared, no margin: 1 (distinct 1)" in out
    assert "1 of 2 compared by a margin: 1 no worse, 1 not compared" in out
    assert main.main(["compare", sound, worse]) == 1
    out = capsys.readouterr().out
    row = out.splitlines()[out.splitlines().index("REGRESSED (1)") + 2]
    assert row.split() == ["a", "ce_loss", "0.101", "0.201", "0.1", "margin", "0.01"]
    assert main.main(["compare", worse, sound]) == 0  # better
    assert main.main(["compare", sound, unknown]) == 3
    assert "UNDECIDED (1)" in capsys.readouterr().out
    assert main.main(["compare", sound, less]) == 3
    assert "only in the first run (passed)" in capsys.readouterr().out
    assert main.main(["compare", less, less]) == 3  # nothing was compared
    assert main.main(["compare", sound, str(Path(sound).parent / "none.json")]) == 4
    assert main.main(["compare", sound, __file__]) == 4
    assert "is not a run record" in capsys.readouterr().err


def test_compare_says_what_is_unpaired(write, capsys):
    """In the row and in the counts."""
    first = write("first", ce_loss())
    second = write("second", ce_loss(values(0.2, seed=9), fingerprint=OTHER_SHA))
    assert main.main(["compare", first, second]) == 1
    out = capsys.readouterr().out
    assert out.count("unpaired") == 2


def test_compare_has_a_row_for_what_has_changed_alone(write, capsys):
    """Regressions first, SAEs as people count; what is the same is counted; 80 columns."""
    ids = [f"blocks.{i}.hook_resid_pre" for i in range(12)]
    before = [ce_loss(sae_id=sae_id) for sae_id in ids]
    after = [
        ce_loss(values(0.2 if i in (2, 10) else 0.05 if i == 1 else 0.1), sae_id=sae_id, weights=OTHER_SHA)
        for i, sae_id in enumerate(ids)
    ]
    reported = histories.without_values("long_context", "reported", sae_id=ids[0])
    first, second = write("first", *before, reported), write("second", *after[::-1])
    assert main.main(["compare", first, second]) == 1
    out = capsys.readouterr().out
    rows = [line.split()[0] for line in out.splitlines() if line.startswith("blocks")]
    assert rows == [ids[2], ids[10], ids[1]]
    assert "the same: 9 (ce_loss 9)" in out
    assert f"LOST, only in the first run (reported): 1 (long_context 1; {ids[0]})" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_compare_as_json(write, capsys):
    """The same exit, and every number."""
    sound, worse = write("sound", ce_loss()), write("worse", ce_loss(values(0.2), weights=OTHER_SHA))
    assert main.main(["compare", sound, worse, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["has_regressed"], found["is_settled"]) == (True, True)
    (only,) = found["cells"]
    assert (only["state"], only["how"], only["was"], only["now"]) == ("regressed", "paired", "passed", "passed")
    assert (only["margin"]["value"], only["margin"]["unit"]) == (0.01, "nats/token")
    assert only["margin"]["where"] == "thresholds.toml [default.regression.ce_loss]"
    assert only["difference"]["value"] == pytest.approx(only["after"]["value"] - only["before"]["value"], abs=1e-6)


def test_compare_by_id(kept, capsys):
    """Two runs of a history, by the ends of their ids; a shift between them is told and excuses nothing."""
    ids = [entry.run_id for entry in store.entries(store.open_history(kept), "demo")]
    assert main.main(["compare", ids[0][-8:], ids[1], "--sae-history", kept]) in (0, 3)
    assert ids[1] in capsys.readouterr().out
    own = Path(kept).parent / "own.toml"
    own.write_text(SHIFT)
    main.main(["compare", ids[2], ids[9], "--sae-history", kept, f"--sae-thresholds={own}"])
    assert "accepted between the two runs, still judged: ce_increase of a since 2026-01-11: a better text" in (
        capsys.readouterr().out
    )
    assert main.main(["compare", ids[0], "zzz", "--sae-history", kept]) == 4


def test_trend_prints_and_draws(kept, tmp_path, capsys):
    """A line per series, the page, and the accepted shift."""
    own, html = tmp_path / "own.toml", tmp_path / "trend.html"
    own.write_text(SHIFT)
    assert main.main(["trend", kept, "demo", "--html", str(html), f"--sae-thresholds={own}"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["measure", "runs", "first", "last", "limit", "worse", "since"]
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["a", "ce_increase", "copies"]
    assert "accepted: ce_increase of a: from 20260111T030000Z_" in out
    assert "a better text" in html.read_text()
    assert main.main(["trend", kept, "demo", "--measure", "kl", "--sae-id", "a"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main.main(["trend", kept, "demo", "--all-measures"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_trend_refuses_what_it_does_not_know(kept, tmp_path, capsys):
    """A measure that no run has, a page that cannot be written, a shift that is not understood: exit 4."""
    assert main.main(["trend", kept, "demo", "--measure", "ce_rise"]) == 4
    assert "kl, ce_increase, copies" in capsys.readouterr().err
    assert main.main(["trend", kept, "demo", "--html", str(tmp_path / "no" / "folder.html")]) == 4
    own = tmp_path / "own.toml"
    own.write_text(SHIFT.replace("reason", "because"))
    assert main.main(["trend", kept, "demo", f"--sae-thresholds={own}"]) == 4
    assert "line 2 [[accepted_shift]]: unknown key 'because'" in capsys.readouterr().err


def test_export_writes_or_prints(write, tmp_path, capsys):
    """JSON to standard output or a file; what is left out is said."""
    sound, out = write("sound", ce_loss(), counted()), tmp_path / "out.json"
    assert main.main(["export", sound, "--format=bencher"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"demo / a / ce_loss", "demo / a / distinct"}
    assert main.main(["export", sound, "--format=github-action-benchmark", f"--out={out}"]) == 0
    assert len(json.loads(out.read_text())) == 2
    assert main.main(["export", sound, "--format=github-action-benchmark", "--better=bigger"]) == 4
    assert "left out: 2 measures of which smaller is better" in capsys.readouterr().err
    assert main.main(["export", sound, "--format=bencher", f"--out={tmp_path / 'no' / 'x'}"]) == 4
    assert main.main(["export", sound, "--format=wandb", f"--out={out}"]) == 4  # a file, not a folder
    nothing = write("nothing", histories.without_values())
    assert main.main(["export", nothing, "--format=bencher"]) == 4
    assert "nothing to export" in capsys.readouterr().err


def test_the_document_has_every_verdict_format_and_number():
    """docs/history.md keeps up."""
    text = " ".join((Path(__file__).parents[2] / "docs" / "history.md").read_text(encoding="utf-8").split())
    for state in get_args(State):
        assert f"`{state}`" in text or f"`{state.upper()}`" in text, state
    for name in (*history.FORMATS, *export.BETTER, *accepted_shifts.KEYS):
        assert name in text
    assert f"exits with **{EXIT_NOT_IN_HISTORY}**" in text


@pytest.mark.slow
def test_a_reader_that_leaves_changes_no_exit_status(write):
    """`sae-checks compare A B | head -1`: no traceback, and still 1."""
    sound, worse = write("sound", ce_loss()), write("worse", ce_loss(values(0.2), weights=OTHER_SHA))
    command = [sys.executable, "-m", "sae_checks", "compare", sound, worse]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait() == 1


@pytest.mark.slow
def test_nothing_heavy_is_imported(kept, write):
    """None of the commands pays for torch or SAE Lens, nor for what it does not need."""
    sound = write("sound")
    commands = [
        ["history", kept],
        ["compare", sound, sound],
        ["trend", kept, "demo", "--html", f"{kept}.html"],
        ["export", sound, "--format=bencher"],
        ["export", sound, "--format=github-action-benchmark"],
    ]
    script = f"""
import sys
from sae_checks.commands import main as cli
assert not {{"numpy", "scipy", "fsspec", "jinja2", "wandb", "msgspec"}} & set(sys.modules), "before it is asked"
for command in {commands!r}:
    assert cli.main(command) == 0, command
    heavy = {{"torch", "sae_lens", "transformers", "transformer_lens", "datasets", "wandb", "pandas", "pytest"}}
    assert not heavy & set(sys.modules), (command, heavy & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
