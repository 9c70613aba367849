"""`--sae-explain`: a section for each SAE that was asked for, beside verdicts that it does not change."""

import pytest
from tiny_release import HOOKS, copy_saes, write_zero_sae

from sae_checks.commands import main

pytest_plugins = ["pytester"]
SOUND = HOOKS[0]


@pytest.fixture(scope="module")
def saes(tmp_path_factory, tiny):
    """The identity SAEs, and one that writes nothing."""
    folder = copy_saes(tiny, tmp_path_factory.mktemp("explained") / "saes")
    write_zero_sae(folder / "zero", HOOKS[1])
    return folder


def section(run, sae_id):
    """The lines of one SAE's section, as the terminal has them; None: there is none."""
    starts = [i for i, line in enumerate(run.lines) if line.strip("= ") == f"why {sae_id}"]
    if not starts:
        return None
    (start,) = starts
    end = next(i for i in range(start + 1, len(run.lines)) if run.lines[i].startswith("===="))
    return run.lines[start + 1 : end]


def test_a_red_sae_is_explained(saes, gate, capsys):
    """Each red check in a line, then predictions with their positions; verdict and record as without, and more."""
    plain, run = gate(saes=saes), gate("--sae-explain=z*", saes=saes)
    assert (run.exit_code, run.outcomes) == (plain.exit_code, plain.outcomes)
    assert "why zero" not in plain.text
    found = section(run, "zero")
    red = [cell for cell, outcome in run.outcomes.items() if cell[0] == "zero" and outcome != "passed"]
    states = ("FAILED: ", "INCONCLUSIVE: ")
    assert [line.split(" ")[1].strip(":") for line in found if line.startswith(states)] == [check for _, check in red]
    explanation = run.results["zero", "ce_loss"].explanation
    assert len(explanation.tokens) == 6
    assert sum(line.startswith("document ") for line in found) == 6
    assert sum(line.startswith("worst sequences, nats/token within the training context: ") for line in found) == 1
    worst = [each.document_index for each in run.results["zero", "ce_loss"].worst_sequences[:3]]
    assert list(dict.fromkeys(token.document_index for token in explanation.tokens)) == worst
    assert "the SAE leaves something out" in " ".join(run.text.split())
    assert all(r.explanation is None for cell, r in run.results.items() if cell != ("zero", "ce_loss"))
    assert dict(run.record.options)["explain"] == "z*"
    capsys.readouterr()
    assert main.main(["explain", str(run.record_path)]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == ["why zero", *(f"  {line}" for line in found)]


def test_of_a_green_sae_there_is_nothing_to_explain(saes, gate):
    """A section all the same, for it was asked for; one for each that matches any of the patterns."""
    run = gate(f"--sae-explain={SOUND}", "--sae-explain=blocks.1.*pre", "-k", "ce_loss", saes=saes)
    for sae_id in HOOKS[:2]:
        found = " ".join(" ".join(section(run, sae_id)).split())
        assert found.endswith(
            "nothing to explain: no prediction of the worst sequences costs 0.01 nats more with the splice in place"
        )
    assert section(run, HOOKS[2]) is section(run, "zero") is None


def test_without_the_check_of_the_loss_there_is_nothing_to_explain_from(saes, gate):
    """Deselected, or an error: the section says which."""
    run = gate("--sae-explain=zero", "-k", "lambada", saes=saes)
    found = section(run, "zero")
    assert sum(line.startswith("FAILED: lambada") for line in found) == 1
    assert found[-1].startswith("no explanation: it needs the check ce_loss: not selected")
    assert run.results["zero", "ce_loss"].explanation is None


def test_an_sae_that_cannot_be_measured_is_not_explained(tmp_path, tiny, gate):
    """The section of an SAE with an error shows the error."""
    saes = copy_saes(tiny, tmp_path / "saes")
    (saes / SOUND / "cfg.json").write_text("{")
    run = gate("--sae-explain=*", "-k", "ce_loss", saes=saes)
    red, *_ = found = section(run, SOUND)
    assert red.startswith("ERROR: ce_loss: ")
    assert any(line.startswith("no explanation: it needs the check ce_loss: ") for line in found)
    assert section(run, HOOKS[1]) is not None


@pytest.mark.parametrize("patterns", [["nothing*"], ["zero", "nothing*"]])
def test_a_pattern_that_matches_nothing_is_refused(saes, gate, patterns):
    """A pattern that matches no SAE is refused before anything is measured, also beside one that matches."""
    run = gate(*(f"--sae-explain={pattern}" for pattern in patterns), saes=saes)
    assert run.exit_code == 4
    assert "--sae-explain=nothing* matches no SAE of the release" in run.text
    assert "zero" in run.text
    assert not run.record_path.exists()


def test_each_shard_explains_its_own(saes, gate):
    """SAEs of other shards have no section."""
    run = gate("--sae-explain=*", "--sae-shard=1/2", "-k", "ce_loss", saes=saes)
    own = {
        sae_id for (sae_id, check), outcome in run.outcomes.items() if check == "ce_loss" and outcome != "not_measured"
    }
    assert 0 < len(own) < 4
    assert {sae_id for sae_id in (*HOOKS, "zero") if section(run, sae_id) is not None} == own


def test_weights_that_left_memory_come_back(saes, gate):
    """With room for one SAE at a time the explanation is the same."""
    runs = [gate("--sae-explain=*", "-k", "ce_loss", *more, saes=saes) for more in ((), ("--sae-memory=1e-6",))]
    (one, other) = (run.results["zero", "ce_loss"].explanation for run in runs)
    assert one.tokens
    assert one == other
    assert runs[0].outcomes == runs[1].outcomes


def test_nothing_is_explained_where_nothing_ran(saes, gate):
    """--collect-only measures and explains nothing."""
    run = gate("--sae-explain=zero", "--collect-only", saes=saes)
    assert run.exit_code == 0
    assert section(run, "zero") is None
