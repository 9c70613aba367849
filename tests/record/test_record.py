"""One run as strict JSON, both ways; a contract that others read."""

import base64
import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from builders import estimate
from hypothesis import given, settings
from strategies import records, results

from sae_checks import checks, errors
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio
from sae_checks.judging.position_readings import Curve
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.record import record, schema
from sae_checks.record.results import software

SHA = "0" * 64
MEASURES = {
    "ce_loss": {"ce_clean", "ce_spliced", "ce_increase", "ce_recovered", "kl"},
    "lambada": {"accuracy_clean", "accuracy_spliced", "accuracy_drop", "perplexity_clean", "perplexity_spliced"},
    "cbt": {"choice_accuracy_clean", "choice_accuracy_spliced", "choice_accuracy_drop", "answer_logprob_drop"},
    "long_context": {"ce_increase_within", "ce_increase_beyond", "degradation"},
    "usable_context": {"usable_context", "usable_context_tokens"},
    "sparsity": {"l0", "explained_variance"},
    "propagation": {
        "own_error",
        "relative_error_next",
        "relative_error_last",
        "amplification_next",
        "amplification_last",
    },
    "next_sae": {"next_explained_variance_clean", "next_explained_variance", "next_explained_variance_loss"},
    "last_sae": {"last_explained_variance_clean", "last_explained_variance", "last_explained_variance_loss"},
    "own_layer": {
        *("increase_at_home", "increase_at_neighbour", "own_layer_margin"),
        *("explained_variance_at_home", "explained_variance_at_place", "own_place_ratio"),
    },
    "distinct": {"copies"},
    "random_error": {"kl_spliced", "kl_isotropic", "kl_covariance", "kl_ratio_isotropic", "kl_ratio_covariance"},
    "stacked": {"stack_ce_clean", "stack_ce_spliced", "stack_ce_increase", "stack_kl"},
    "stacked_lambada": {"stack_accuracy_clean", "stack_accuracy_spliced", "stack_accuracy_drop"},
    "golden": {"golden_probability_clean", "golden_probability_spliced", "probability_error"},
}
"""What the contract promises to those who read records."""


def test_the_promised_measures_exist():
    """Checks and measures have the names that the contract promises; more may be added, none renamed."""
    names = {check.name: {measure.name for measure in check.measures} for check in checks.CHECKS}
    assert names.keys() == MEASURES.keys()
    for check, promised in MEASURES.items():
        assert promised <= names[check]


def test_a_measure_has_one_unit():
    """Names of measures are not shared between checks, and every check and measure is named once."""
    measures = [measure.name for check in checks.CHECKS for measure in check.measures]
    assert len(measures) == len(set(measures))
    for check in checks.CHECKS:
        assert checks.named(check.name) is check
        assert check.unit_of("no such measure") is None
    with pytest.raises(KeyError):
        checks.named("no such check")


def test_the_software_that_can_move_a_number_is_recorded():
    """Versions of the libraries that compute, as installed."""
    versions = {package.name: package.version for package in software()}
    assert {"torch", "transformers", "sae-lens", "numpy", "scipy", "pytest"} <= versions.keys()
    assert versions["pytest"] == pytest.__version__


@given(records())
@settings(max_examples=10)
def test_a_record_survives_json(any_record):
    """to_json and from_json are inverse, the text is strict JSON, and the document is of the schema."""
    document = record.to_json(any_record)
    jsonschema.Draft202012Validator(schema.json_schema()).validate(json.loads(record.dumps(document)))
    text = record.dumps(document)
    assert record.from_json(json.loads(text)) == any_record


@given(results())
@settings(max_examples=10)
def test_a_result_survives_the_way_from_a_worker(result):
    """pack and unpack are inverse, through one string."""
    packed = record.pack(result)
    assert isinstance(packed, str)
    assert record.unpack(packed) == result


def test_a_record_survives_its_file(run, tmp_path):
    """write and read are inverse, and nothing but the file is left."""
    record.write(run, tmp_path / "record.json")
    assert record.read(tmp_path / "record.json") == run
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_facts_are_written_once(run):
    """Two checks of one SAE on one corpus share its facts."""
    (result,) = run.results
    both = replace(run, results=(result, replace(result, check="sparsity", limit=None)))
    document = record.to_json(both)
    assert [len(document[key]) for key in ("models", "corpora", "results")] == [1, 1, 2]
    assert len(document["release"]["saes"]) == 1
    assert record.from_json(document) == both


def test_reading_does_not_change_the_document(run):
    """A document read twice gives the same record twice."""
    document = record.to_json(run)
    before = copy.deepcopy(document)
    assert record.from_json(document) == record.from_json(document)
    assert document == before


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_never_written(run, bad, tmp_path):
    """A NaN in a record raises, and the file that was there stays."""
    (result,) = run.results
    spoilt = replace(run, results=(replace(result, estimates=(estimate("ce_increase", bad),)),))
    path = tmp_path / "record.json"
    record.write(run, path)
    with pytest.raises(ValueError, match=r"results\[0\]\.estimates\.ce_increase\.value = .* not JSON compliant"):
        record.write(spoilt, path)
    assert record.read(path) == run
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_file_with_words_that_are_not_json_is_refused(run, word, tmp_path):
    """Python reads NaN, JSON has none; nor a number beyond float64."""
    path = tmp_path / "record.json"
    record.write(run, path)
    path.write_text(path.read_text().replace('"wall_s": 1.5', f'"wall_s": {word}'))
    with pytest.raises(errors.RecordError, match=f"{word} is (not JSON|too large)"):
        record.read(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"garbage",
        b"[]",
        b"null",
        b"{}",
        b'"text"',
        b"\xff\xfe",
        b'{"schema": 3}',
        b'{"schema": 4}',
        b"[" * 100_000,
    ],
    ids=["empty", "cut", "garbage", "list", "null", "object", "text", "not-utf8", "bare 3", "bare 4", "deep"],
)
def test_garbage_is_refused(content, tmp_path):
    """What is no record is a RecordError that names the file."""
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(errors.RecordError, match=r"record\.json is not a run record"):
        record.read(path)


def test_a_missing_file_is_refused(tmp_path):
    """A file that is not there, or is a folder, is a RecordError."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(errors.RecordError):
            record.read(path)


def _spoil(document, *keys, value):
    for key in keys[:-1]:
        document = document[key]
    document[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("schema",), 1),
        (("schema",), True),
        (("wall_s",), -1),
        (("wall_s",), "1"),
        (("extra",), 1),
        (("release", "extra"), 1),
        (("results", 0, "outcome"), "ok"),
        (("results", 0, "estimates", "ce_increase", "value"), None),
        (("results", 0, "estimates", "ce_increase", "n"), 1.5),
        (("results", 0, "limits", 0, "min"), "0"),
        (("results", 0, "limits", 0, "max"), None),
        (("results", 0, "limits"), [{}, {}]),
        (("results", 0, "estimates", "ce_increase", "extra"), 1),
        (("models", 0, "extra"), 1),
        (("models", 0, "weights", 0, "extra"), 1),
        (("models", 0, "n_layers"), 10**400),
        (("wall_s",), 10**400),
        (("release", "saes", 0, "d_in"), True),
        (("schema",), 2),
        (("schema",), 5),
        (("schema",), 4.0),
        (("schema",), None),
        (("corpora", 0, "fingerprint"), "abc"),
        (("results", 0, "curves"), {"kl": {}}),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_another_schema_is_refused(run, keys, value):
    """Another schema number, a value out of its type, or a field too many is a RecordError."""
    document = record.to_json(run)
    _spoil(document, *keys, value=value)
    with pytest.raises(errors.RecordError):
        record.from_json(document)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("results", 0, "model_index"), 1),
        (("results", 0, "model_index"), -1),
        (("results", 0, "corpus_index"), 1),
        (("results", 0, "corpus_index"), -1),
        (("results", 0, "corpus_index"), None),
        (("results", 0, "sae_id"), "other"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_a_row_that_points_nowhere_is_refused(run, keys, value):
    """A result whose model, corpus or SAE is not in the file is a RecordError, never another one's facts."""
    document = record.to_json(run)
    _spoil(document, *keys, value=value)
    with pytest.raises(errors.RecordError):
        record.from_json(document)


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        ("value", [1.0, "2"]),
        ("value", [1.0, None]),
        ("low", [True, 1.0]),
        ("n_sequences", [1, -1]),
        ("n_sequences", [1, 1.5]),
        ("position", [1, True]),
        ("position", "12"),
        ("high", [1.0]),
    ],
)
def test_a_column_that_is_none_is_refused(run, column, bad):
    """Columns hold numbers, counts from 0 on where they count, and are of one length."""
    (result,) = run.results
    numbers = (0.5, 1.5)
    curve = Curve(
        measure="kl", unit="nats/token", position=(3, 4), value=numbers, low=numbers, high=numbers, n_sequences=(2, 2)
    )
    drawn = replace(run, results=(replace(result, check="long_context", limit=None, curves=(curve,)),))
    document = record.to_json(drawn)
    assert record.from_json(document) == drawn
    _spoil(document, "results", 0, "curves", "kl", column, value=bad)
    with pytest.raises(errors.RecordError):
        record.from_json(document)


@pytest.mark.parametrize("failing", ["write_text", "replace"])
def test_a_failing_write_leaves_the_old_file(run, failing, tmp_path, monkeypatch):
    """A full disk halfway, or a rename that fails: the old record is whole, and no litter lies beside it."""
    path = tmp_path / "record.json"
    record.write(run, path)
    whole = path.read_bytes()

    def fail(self, *args, **kwargs):
        if failing == "write_text":
            self.write_bytes(b'{"half": ')
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, failing, fail)
        with pytest.raises(OSError, match="no space left"):
            record.write(replace(run, wall_s=2.0), path)
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_write_over_a_folder_leaves_no_litter(run, tmp_path):
    """The name is taken by a folder: an error, and the folder as it was."""
    (tmp_path / "record.json").mkdir()
    with pytest.raises(OSError, match=r"record\.json"):
        record.write(run, tmp_path / "record.json")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_worst_sequences_come_back_with_their_check(run):
    """They belong to ce_loss; tokens of any kind survive, and columns of different length are refused."""
    each = WorstSequence(
        document_index=3,
        mean_increase_nats_per_token=2.5,
        first_position=7,
        tokens=("\n", "\ud800", "<b>"),
        increase_nats=(None, 0.5, -1.0),
    )
    document = record.to_json(replace(run, results=(replace(run.results[0], worst_sequences=(each,)),)))
    assert record.from_json(json.loads(json.dumps(document))).results[0].worst_sequences == (each,)
    document["results"][0]["worst_sequences"][0]["tokens"] += ("more",)
    with pytest.raises(errors.RecordError, match="not of one length"):
        record.from_json(document)


def test_a_number_of_numpy_is_a_number(run, tmp_path):
    """float64 of NumPy is written as what it is."""
    (result,) = run.results
    measured = replace(run, results=(replace(result, estimates=(estimate("ce_increase", np.float64(0.1)),)),))
    record.write(measured, tmp_path / "record.json")
    assert record.read(tmp_path / "record.json") == measured


def test_empty_details_are_left_out(run):
    """A result has the fields that every result has, and the details that it has."""
    (row,) = record.to_json(run)["results"]
    always = {"sae_id", "check", "outcome", "reason", "limits", "estimates", "model_index", "corpus_index"}
    assert row.keys() == always | {"judged"}


def test_an_entry_of_a_field_of_a_result_is_one_line(run):
    """People read the head of a file and its results; columns of numbers take one line each."""
    lines = [line.strip() for line in record.text(run).splitlines()]
    assert '"outcome": "passed",' in lines
    assert any(line.startswith('"ce_increase": {"value": 0.1,') for line in lines)


def test_what_is_wrong_is_said_with_its_place(run):
    """The path of the value in the file."""
    document = record.to_json(run)
    _spoil(document, "results", 0, "estimates", "ce_increase", "n", value="many")
    with pytest.raises(errors.RecordError, match=r"\$\.results\[0\]\.estimates\[\.\.\.\]\.n"):
        record.from_json(document)
    document = record.to_json(run)
    _spoil(document, "release", "saes", 0, "colour", value="red")
    with pytest.raises(errors.RecordError, match=r"\$\.release\.saes\[0\]\.colour"):
        record.from_json(document)


def _column(numbers, dtype="<f4"):
    return base64.b64encode(np.array(numbers, dtype=dtype)).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"numerators": "no base64!"},
        {"numerators": "AAA="},
        {"numerators": _column([1.0])},
        {"numerators": _column([math.nan, 1.0])},
        {"denominators": _column([0.0, 0.0])},
        {"kind": "answers"},
        {"kind": "other"},
    ],
    ids=["letters", "half a number", "lengths", "nan", "nothing below", "other columns", "other kind"],
)
def test_a_spoilt_sample_is_refused(run, changes):
    """A sample that was edited is an error, not a number."""
    sample = PairedRatio(
        measure="kl", measures_version=1, fingerprint=SHA, numerators=(1.0, 2.0), denominators=(1.0, 1.0)
    )
    kept = replace(run, results=(replace(run.results[0], paired_sample=sample),))
    document = record.to_json(kept)
    assert record.from_json(document) == kept
    document["results"][0]["paired_sample"] |= changes
    with pytest.raises(errors.RecordError):
        record.from_json(document)


def test_an_answer_that_is_none_is_refused(run):
    """Answers are -1, 0 and 1."""
    sample = PairedAnswers(measure="accuracy_drop", measures_version=1, fingerprint=SHA, answers=(1,), n_listed=None)
    document = record.to_json(replace(run, results=(replace(run.results[0], paired_sample=sample),)))
    document["results"][0]["paired_sample"]["answers"] = _column([2], "<i1")
    with pytest.raises(errors.RecordError, match="none of -1, 0 and 1"):
        record.from_json(document)
