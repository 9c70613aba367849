"""What an explanation says in words, in the record, on the page and at the command line."""

from dataclasses import replace

import pytest
import report_record
from hypothesis import given
from strategies import HOSTILE, results

from sae_checks import checks
from sae_checks.commands import main
from sae_checks.diagnosis import Diagnosis
from sae_checks.explanation import AblatedLatent, CostlyToken, Explanation, RestoredPosition
from sae_checks.record import record
from sae_checks.report import contents, explaining, html, wording

LATENT = AblatedLatent(latent_index=113, activation=3.21, norm_share=0.12, recovered_nats=0.4)
SOURCE = RestoredPosition(
    position=34,
    token=" the",
    recovered_nats=3.2,
    norm_ratio=0.31,
    cosine=0.98,
    n_active_latents=24,
    n_ablated_latents=24,
    all_ablated_recovered_nats=-0.5,
    ablated_latents=(
        LATENT,
        replace(LATENT, latent_index=7, recovered_nats=0.05),
        replace(LATENT, latent_index=8, recovered_nats=-2.0),
    ),
)
TOKEN = CostlyToken(
    document_index=12,
    position=35,
    preceding_text=" walked\n to the",
    token=" door",
    probability_clean=0.91,
    probability_spliced=0.02,
    increase_nats=3.82,
    spliced_top_token=" dog",
    spliced_top_probability=0.33,
    n_restored_positions=34,
    restored_positions=(
        SOURCE,
        replace(SOURCE, position=3, recovered_nats=0.2, n_active_latents=None, n_ablated_latents=0, ablated_latents=()),
    ),
)


RECONSTRUCTED = ", length 31%, cosine 0.98"


def lines_of(**changes):
    (told,) = explaining.explain_tokens(Explanation(tokens=(replace(TOKEN, **changes),)))
    return [told.title, *told.lines]


def of_source(**changes):
    return lines_of(restored_positions=(replace(SOURCE, **changes),))[2:]


def test_a_prediction_in_words():
    """Where it stands, what became of it, where that comes from, and the latents one can look up."""
    assert lines_of() == [
        "document 12, token 35: … walked↵ to the▸ door◂",
        "probability 0.91 → 0.02 (3.82 nats more): predicts ' dog' with 0.33",
        f"clean at 34 ' the' (1 back): recovers 3.2 nats{RECONSTRUCTED}",
        "  of 24 active latents the best, taken out, recovers 0.4 nats of that",
        "  latent 113: recovers 0.4 nats; activation 3.21, 12% of the decoded norm",
        "  latent 7: recovers 0.05 nats; activation 3.21, 12% of the decoded norm",
        f"clean at 3 ' the' (32 back): recovers 0.2 nats{RECONSTRUCTED}",
    ]


def test_where_no_latent_is_to_blame():
    """What the SAE leaves out, what only all latents together do, and what could not be tried, are told apart."""
    useless = (replace(LATENT, recovered_nats=0.001),)
    (_, line) = of_source(ablated_latents=useless)
    assert line.strip() == "none of 24 latents, taken out, recovers 0.01 nats: the SAE leaves something out"
    assert of_source(ablated_latents=(), all_ablated_recovered_nats=None)[1].endswith("leaves something out")
    assert (
        "no single one is to blame; all of them taken out recover 0.7"
        in of_source(ablated_latents=(), all_ablated_recovered_nats=0.7)[1]
    )
    untried = of_source(ablated_latents=(), n_active_latents=None, why_no_latents="it has none")
    assert untried[1:] == ["  latents cannot be taken out one by one: it has none"]
    assert (
        "of 900 active latents (tried: the 256 that write most) the best"
        in of_source(n_active_latents=900, n_ablated_latents=256)[1]
    )
    assert of_source(cosine=None)[0].endswith("recovers 3.2 nats, length 31%")
    assert of_source(cosine=None, norm_ratio=None)[0].endswith("recovers 3.2 nats")
    assert of_source(recovered_nats=0.1)[1].endswith("recovers 0.4 nats more than that")


def test_where_no_position_is_to_blame():
    """And where the token is still the most probable one."""
    found = lines_of(restored_positions=(), spliced_top_token=None, spliced_top_probability=None)
    assert found[1].endswith("(3.82 nats more): still the most probable token")
    assert found[2:] == ["none of 34 positions, clean again, recovers 0.01 nats"]


def run_with(explanation, *, outcome="failed"):
    run = report_record.run(2, red=("blocks.0.hook_resid_pre",))
    first, *rest = run.results
    return replace(run, results=(replace(first, outcome=outcome, explanation=explanation), *rest))


def section_of(run, sae_id="blocks.0.hook_resid_pre"):
    return explaining.explain_sae([r for r in run.results if r.sae_id == sae_id])


def test_a_section_begins_with_what_is_red():
    """A line for each red check, the worst sequences, then the predictions; of a green SAE that none is red."""
    found = section_of(run_with(Explanation(tokens=(TOKEN,))))
    assert found[0].startswith("FAILED: ce_loss")
    assert found[0].endswith("as told")
    assert found[1] == "worst sequences, nats/token within the training context: 1.5 over document 3"
    assert found[2] == lines_of()[0]
    assert section_of(run_with(Explanation(why_none="all good"), outcome="passed")) == (
        "none of its checks is red",
        "worst sequences, nats/token within the training context: 1.5 over document 3",
        "nothing to explain: all good",
    )


def test_the_diagnosis_comes_first():
    """Once, however many of the SAE's checks are red."""
    run = run_with(Explanation(why_none="all good"))
    found = Diagnosis(sentence="the reconstruction is 1.6 times too long")
    red = [replace(run.results[0], diagnosis=found), replace(run.results[1], outcome="failed", diagnosis=found)]
    lines = explaining.explain_sae(red)
    assert lines[0] == "the reconstruction is 1.6 times too long"
    assert sum("too long" in line for line in lines) == 1


def test_without_an_explanation_the_reason_is_told():
    """What ce_loss says of itself: that it was not selected, or its error."""
    run = run_with(None)
    first = replace(run.results[0], outcome="not_measured", reason="not selected in this run\nmore", worst_sequences=())
    found = explaining.explain_sae([first])
    assert found[-1] == "no explanation: it needs the check ce_loss: not selected in this run"
    assert "it was not selected" in explaining.explain_sae([])[-1]


@given(results(check=checks.CE_LOSS))
def test_any_explanation_is_lines_that_can_be_shown(result):
    """No control character, no line end, no half of a pair, whatever the tokens are."""
    for line in explaining.explain_sae([result]):
        assert line.isprintable()
        line.encode()
        assert len(line) <= 78


@pytest.mark.parametrize("name", [*HOSTILE, "<script>x</script>", "</details>"])
def test_the_report_shows_it(name):
    """The page, with tokens as text."""
    run = run_with(Explanation(tokens=(replace(TOKEN, token=name, spliced_top_token=name),)))
    page = html.page(contents.build(run))
    assert page.count("Where the loss comes from</h4>") == 1
    assert "latent 113: recovers 0.4 nats" in page
    assert "<script>" not in page
    assert "Where the loss" not in html.page(contents.build(run_with(None)))
    assert wording.token("a\nb") == "a↵b"


def test_the_command_prints_what_the_run_said(tmp_path, capsys):
    """Of all SAEs that are explained, or those that match; what to type next; exit code 0 though they are red."""
    run = run_with(Explanation(tokens=(TOKEN,)))
    record.write(run, tmp_path / "run.json")
    said = []
    for arguments in ([], ["blocks.0*"]):
        assert main.main(["explain", str(tmp_path / "run.json"), *arguments]) == 0
        said.append(capsys.readouterr().out.splitlines())
    assert said[0] == said[1]
    *lines, next_line = said[0]
    assert lines == ["why blocks.0.hook_resid_pre", *(f"  {line}" for line in section_of(run))]
    assert next_line == f"next: sae-checks report {tmp_path / 'run.json'}"


@pytest.mark.parametrize("asked", ["blocks.1*", "nothing"])
def test_the_command_names_what_is_not_explained(tmp_path, capsys, asked):
    """The record, the SAE, those that are explained, and the option that makes an explanation: exit code 4."""
    record.write(run_with(Explanation(tokens=(TOKEN,))), tmp_path / "run.json")
    assert main.main(["explain", str(tmp_path / "run.json"), asked]) == 4
    said = capsys.readouterr().err
    assert f"run.json explains no SAE that {asked} matches" in said
    assert "explained: blocks.0.hook_resid_pre; SAEs: blocks.0.hook_resid_pre, blocks.1.hook_resid_pre" in said
    assert "--sae-explain=" in said
    record.write(run_with(None), tmp_path / "run.json")
    assert main.main(["explain", str(tmp_path / "run.json")]) == 4
    assert "explained: nothing" in capsys.readouterr().err
    (tmp_path / "none.json").write_text("{}")
    assert main.main(["explain", str(tmp_path / "none.json")]) == 4
    assert "is not a run record" in capsys.readouterr().err
