"""Records of schema 3 are read as records of schema 4."""

import json
from pathlib import Path

import pytest

from sae_checks import errors
from sae_checks.record import record

FILE = Path(__file__).with_name("schema3.json")
SAE = "blocks.0.hook_resid_pre"


@pytest.fixture(scope="module")
def old():
    """The document of schema 3 as it was written."""
    return json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found():
    """The results of the file, by SAE or stack and check."""
    return {(r.sae_id, r.check): r for r in record.read(FILE).results}


def test_every_number_is_there(old, found):
    """Outcomes, estimates, limits and decisions are those of the file."""
    assert len(found) == len(old["results"]) > 5
    for row in old["results"]:
        result = found[row["sae_id"], row["check"]]
        assert (result.outcome, result.reason) == (row["outcome"], row["reason"])
        for estimate in result.estimates:
            expected = row["measures"][estimate.measure]
            assert [estimate.value, estimate.low, estimate.high] == [expected[k] for k in ("value", "low", "high")]
            assert (estimate.n, estimate.unit) == (expected["n"], expected["unit"])
        assert len(result.estimates) == len(row["measures"])
        assert result.limit.value == row["limit"][result.limit.kind]
        decision = row["decision"]
        assert (result.decision is None) == (decision is None)
        if decision is not None:
            numbers = (result.decision.n_used, result.decision.n_most, result.decision.value, result.decision.worst)
            assert numbers == tuple(decision[k] for k in ("decided_at", "n_most", "value", "worst"))
        assert (result.provenance is None) == (row["model"] is None)


def test_every_detail_is_with_its_check(old, found):
    """What schema 3 keeps beside the results is a field of one of them."""
    ce_loss, lambada, cbt = (found[SAE, check] for check in ("ce_loss", "lambada", "cbt"))
    assert ce_loss.worst_sequences[0].tokens == tuple(old["worst"][SAE][0]["tokens"])
    assert ce_loss.worst_sequences[0].mean_increase_nats_per_token == old["worst"][SAE][0]["mean_increase"]
    assert ce_loss.explanation.tokens[0].restored_positions[0].ablated_latents[0].latent_index == 4
    assert ce_loss.paired_sample.n == 3
    assert lambada.changed_answers[0].item_index == old["flips"][SAE][0]["item"]
    assert cbt.changed_choices[0].chosen_instead == old["choice_flips"][SAE][0]["instead"]
    assert lambada.paired_sample.n_listed == old["samples"][SAE]["lambada"]["n_listed"]
    assert [c.measure for c in found[SAE, "long_context"].curves] == list(old["curves"][SAE])
    assert found[SAE, "propagation"].downstream[0].l0 == old["propagation"][SAE][0]["l0"]
    assert len(found["all of resid", "stacked"].stack_steps) == 2


def test_it_is_written_as_schema_4(tmp_path):
    """What was read is written and read again."""
    before = record.read(FILE)
    record.write(before, tmp_path / "record.json")
    assert json.loads((tmp_path / "record.json").read_text())["schema"] == 4
    assert record.read(tmp_path / "record.json") == before


def test_an_early_record_is_read(old):
    """What schema 3 did not have at first is empty; what it always had is missed by name."""
    early = {key: value for key, value in old.items() if key not in ("choice_flips", "explanations")}
    assert all(r.explanation is None and r.changed_choices == () for r in record.from_json(early).results)
    del early["worst"]
    with pytest.raises(errors.RecordError, match="'worst' of schema 3 is missing"):
        record.from_json(early)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("extra", 1, "extra"),
        ("results", 1, "schema 3"),
        ("results", [{"sae_id": "a"}], "schema 3"),
        ("curves", [], "schema 3"),
        ("wall_s", "long", "wall_s"),
        ("schema", 2, "its schema is 2; 3 and 4 can be read"),
        ("schema", "3", "its schema is '3'"),
    ],
)
def test_what_is_not_of_schema_3_is_refused(old, key, value, said):
    """By the check of schema 4, or where the translation has nothing to translate."""
    with pytest.raises(errors.RecordError, match=said):
        record.from_json({**old, key: value})
