"""What a run leaves behind for others to read: the run record and JUnit XML."""

import hashlib
import json
import math
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import xmlschema
from gate_run import properties_of
from tiny_release import (
    CHECKS,
    HOOKS,
    N_CELLS,
    N_CHECKS,
    N_CONTEXT,
    N_TRAINING_CONTEXT,
    copy_saes,
    write_sae,
    write_zero_sae,
)

from sae_checks.record import record, schema
from sae_checks.record.document import SCHEMA
from sae_checks.report.terminal_tables import cut

pytest_plugins = ["pytester"]

XSD = Path(__file__).parent / "junit.xsd"
_OF_SCHEMA = "{http://www.w3.org/2001/XMLSchema}"
SMALL = (
    '<testsuites name="n"><testsuite name="s" tests="1" failures="0" errors="0" skipped="0" time="0.1" hostname="h" '
    'timestamp="2026-11-22T16:00:00.5+00:00"><testcase classname="c" name="x" time="0.1"/>{}</testsuite></testsuites>'
)
# As a stranger may name the folder of an SAE; all of them are file names that Linux allows.
HOSTILE_NAMES = [
    '<b>&"x"',
    "]]><!--'",
    "two words",
    "ctrl\x01\x1b[31m\x7f",
    "new\nline\ttab",
    "bl\u00f6cke.\u96ea",
    "right\u202eleft",
    "a::b",
    "a[0]b",
    "%41\\x41",
    "-k",
    "0" * 130 + "a",
    "0" * 130 + "b",
]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lax():
    """The schema that allows properties of a test case."""
    return xmlschema.XMLSchema(XSD)


def strict():
    """The same without them."""
    tree = ET.parse(XSD)
    for parent in tree.iter(f"{_OF_SCHEMA}sequence"):
        for child in parent.findall(f"{_OF_SCHEMA}element[@id='properties-of-case']"):
            parent.remove(child)
    return xmlschema.XMLSchema(ET.tostring(tree.getroot(), encoding="unicode"))


def without_properties_of_cases(path):
    """The file's XML less the properties of its test cases."""
    root = ET.parse(path).getroot()
    for case in root.iter("testcase"):
        for found in case.findall("properties"):
            case.remove(found)
    return ET.tostring(root, encoding="unicode")


@pytest.fixture
def mixed(tmp_path, tiny, gate, runs):
    """A run with every outcome."""
    if "mixed" in runs:
        return runs["mixed"]
    saes = copy_saes(tiny, tmp_path / "saes")
    write_zero_sae(saes / "zero", HOOKS[1])
    write_sae(saes / "unknown-context", HOOKS[0], metadata={"context_size": None})
    write_sae(saes / "broken", HOOKS[0])
    (saes / "broken" / "cfg.json").write_text("{")
    runs["mixed"] = gate(saes=saes)
    return runs["mixed"]


def test_record_holds_every_cell(mixed):
    """Every SAE and check of the plan has one result, in the release's order."""
    sae_ids = [HOOKS[0], "unknown-context", HOOKS[1], "zero", HOOKS[2], "broken"]
    assert list(mixed.record.release.sae_ids) == sae_ids
    found = [(result.sae_id, result.check) for result in mixed.record.results]
    assert found == [(sae_id, check) for sae_id in sae_ids for check in CHECKS]
    assert set(mixed.outcomes.values()) == {"passed", "failed", "inconclusive", "not_measured", "error"}


def test_record_of_deselected_checks(gate):
    """What was not selected is recorded as not measured, with its limit and the reason."""
    result = gate("-k", "sparsity").results[HOOKS[1], "ce_loss"]
    assert (result.outcome, result.estimates, result.provenance) == ("not_measured", (), None)
    assert result.reason.startswith("not selected")
    assert result.limit.measure == "ce_increase"


def test_record_is_strict_json_of_its_schema(mixed):
    """The file is JSON without NaN, and valid by the schema that is shipped."""

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads(mixed.record_path.read_text("utf-8"), parse_constant=refuse)
    jsonschema.validate(document, schema.json_schema())
    assert document["schema"] == SCHEMA


def test_record_names_what_was_measured(tiny, gate):
    """Model, corpora and SAEs are in the record with the sha256 of the very files."""
    results = gate().results
    text, items = (results[HOOKS[0], check].provenance for check in ("ce_loss", "lambada"))
    assert text.model.source == str(tiny.model)
    assert (text.model.architecture, text.model.n_layers, text.model.d_model) == ("GPT2LMHeadModel", 2, 16)
    assert (text.model.dtype, text.model.device) == ("float32", "cpu")
    assert {f.name: f.sha256 for f in text.model.weights} == {
        "model.safetensors": sha256(tiny.model / "model.safetensors")
    }
    assert (text.corpus.kind, text.corpus.source, text.corpus.sha256) == (
        "text",
        str(tiny.corpus),
        sha256(tiny.corpus),
    )
    assert (text.corpus.n_sequences, text.corpus.n_context_tokens, text.corpus.n_truncated) == (48, N_CONTEXT, 48)
    assert text.corpus.n_scored_tokens == 48 * (N_CONTEXT - 2)  # BOS predicts nothing that is scored
    assert (items.corpus.kind, items.corpus.sha256) == ("lambada", sha256(tiny.lambada))
    assert items.corpus.n_scored_tokens == items.corpus.n_sequences == 48
    for hook in HOOKS:
        facts = results[hook, "sparsity"].provenance.sae
        assert (facts.sae_id, facts.hook, facts.d_in, facts.d_sae) == (hook, hook, 16, 32)
        assert facts.n_training_context_tokens == N_TRAINING_CONTEXT
        assert [file.name for file in facts.weights] == ["sae_weights.safetensors"]
        assert facts.weights[0].sha256 == sha256(tiny.saes / hook / "sae_weights.safetensors")


def test_record_names_software_and_options(tiny, gate):
    """The versions that can move a number and the settings of the run are in the record."""
    found = gate("--sae-seed=7", "--sae-sequences=17").record
    versions = {package.name: package.version for package in found.software}
    for name in ("torch", "transformers", "sae-lens", "numpy", "pytest"):
        assert versions[name] == metadata.version(name)
    options = dict(found.options)
    assert (options["seed"], options["n_sequences"], options["n_context_tokens"]) == (7, 17, N_CONTEXT)
    assert options["corpus"] == str(tiny.corpus)
    assert (found.release.name, found.release.source) == ("tiny-saes", str(tiny.saes))
    assert found.wall_s > 0
    assert found.started.endswith("+00:00")


def test_same_run_same_record(gate):
    """Two runs of one plan differ in time alone."""
    first, second = gate(), gate()
    assert first.record.results == second.record.results
    assert first.record.options == second.record.options


def test_record_takes_the_place_of_an_older_one(pytester, gate):
    """An older file is replaced, and no half-written file stays beside it."""
    out = pytester.path / "out"
    out.mkdir()
    (out / "record.json").write_text("old")
    run = gate("-k", "sparsity")
    assert run.record.release.name == "tiny-saes"
    assert [path.name for path in out.iterdir() if "record.json" in path.name] == ["record.json"]


def test_record_after_an_interruption(pytester, gate):
    """Ctrl-C in the middle keeps what was judged, and the run is not green."""
    pytester.makepyfile(  # a plugin: a conftest's hooks are not asked about items outside its folder
        stop="def pytest_runtest_call(item):\n    if 'sparsity' in item.name:\n        raise KeyboardInterrupt\n"
    )
    pytester.syspathinsert()
    run = gate("-p", "stop")
    assert run.exit_code == pytest.ExitCode.INTERRUPTED
    assert run.outcomes[HOOKS[0], "ce_loss"] == "passed"
    assert run.results[HOOKS[1], "sparsity"].reason == "not reached"
    assert run.record.verdict == "not_decided"


def test_each_result_travels_once(gate, monkeypatch):
    """A result is packed for its report once per check and not once per phase; packing validates, which takes time."""
    packed = []
    pack = record.pack
    monkeypatch.setattr(record, "pack", lambda result: packed.append((result.sae_id, result.check)) or pack(result))
    run = gate()
    assert run.exit_code == 0
    assert sorted(packed) == sorted(run.results)


def test_junit_has_every_measure_limit_and_outcome(mixed):
    """The properties of a test case are the result: outcome, reason, limit, every measure, the bounds of one."""
    assert set(mixed.junit) == set(mixed.results)
    for cell, result in mixed.results.items():
        found = properties_of(mixed.junit[cell])
        assert (found["sae_id"], found["check"], found["outcome"]) == (*cell, result.outcome)
        assert found["limit"] == str(result.limit)
        assert float(found[f"limit.{result.limit.kind}"]) == result.limit.value
        assert found["limit.measure"] == result.limit.measure
        for e in result.estimates:
            is_judged = e.measure == result.judged.measure
            assert float(found[e.measure]) == (result.judged if is_judged else e).value
            assert found[f"{e.measure}.unit"] == e.unit
            assert (f"{e.measure}.low" in found) == (is_judged and result.judged.low is not None)
            assert (f"{e.measure}.n" in found) == is_judged
        if (of := result.judged) is not None:
            assert found.get(f"{of.measure}.low") == (None if of.low is None else str(of.low))


def test_junit_names_of_properties_are_distinct(mixed):
    """GitLab keeps only the first of two properties of one name."""
    for case in mixed.junit.values():
        names = [p.attrib["name"] for p in case.iterfind("properties/property")]
        assert len(names) == len(set(names)) > 5


def test_junit_says_error_failure_and_skipped(mixed):
    """The outcome decides the element, and a passed check has none of the three."""
    element = {
        "passed": None,
        "failed": "failure",
        "inconclusive": "failure",
        "not_measured": "skipped",
        "error": "error",
    }
    for cell, outcome in mixed.outcomes.items():
        found = [child.tag for child in mixed.junit[cell] if child.tag in ("failure", "error", "skipped")]
        assert found == ([element[outcome]] if element[outcome] else []), cell


def test_junit_first_line_of_a_failure(mixed):
    """The message's first line alone, which is all that some readers show, has check, value, limit and SAE."""
    for cell, case in mixed.junit.items():
        if mixed.outcomes[cell] == "failed":
            result = mixed.results[cell]
            first = case.find("failure").get("message").splitlines()[0]
            assert len(first) <= 500
            for part in (*cell, f"{result.judged.value:.3g} ", f" {result.limit.value:g} ", f"n {result.judged.n}"):
                assert part in first


def test_junit_and_record_have_the_verdict_on_the_run(mixed):
    """Those who read no test case know whether the release may ship."""
    written = json.loads(mixed.record_path.read_text())
    assert mixed.junit_verdict == written["verdict"] == mixed.record.verdict == "failed"


def test_junit_is_valid(mixed):
    """The XML is valid, and valid for strict readers too once the properties of its cases are removed."""
    lax().validate(mixed.junit_path)
    strict().validate(without_properties_of_cases(mixed.junit_path))


def test_strict_schema_is_stricter(mixed):
    """The strict variant refuses properties of test cases: it is not the same schema again."""
    with pytest.raises(xmlschema.XMLSchemaValidationError, match="properties"):
        strict().validate(mixed.junit_path)


@pytest.mark.parametrize(
    "damage",
    [
        '<testcase name="x" time="0"/>',
        '<testcase classname="c" name="x" time="-1"/>',
        '<testcase classname="c" name="x" time="0"><error message="m"/><failure message="m"/></testcase>',
        '<testcase classname="c" name="x" time="0"><system-out/><error message="m"/></testcase>',
        '<testcase classname="c" name="x" time="0"><properties><property name="p"/></properties></testcase>',
        '<testcase classname="c" name="x" time="0"><verdict/></testcase>',
    ],
)
def test_schema_refuses_what_is_wrong(damage):
    """The schema can fail: each of these in a valid file is no JUnit."""
    lax().validate(SMALL.format(""))
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        lax().validate(SMALL.format(damage))


def test_junit_without_user_properties_warnings(pytester, gate):
    """Properties do not trip pytest's warning about xunit2 where warnings are errors."""
    pytester.makeini("[pytest]\nfilterwarnings = error\njunit_family = xunit2\n")
    run = gate("-k", "sparsity")
    assert (run.exit_code, run.counts) == (0, {"passed": 3, "deselected": N_CELLS - 3}), run.text


@pytest.fixture
def hostile(tmp_path, gate, runs):
    """A run on SAEs whose folders have hostile names, one of them red and one broken: every sort of line appears."""
    if "hostile" in runs:
        return runs["hostile"]
    saes = tmp_path / "saes"
    for name in HOSTILE_NAMES:
        write_sae(saes / name, HOOKS[1])
    write_zero_sae(saes / "red <&\x1b[31m\u00e9", HOOKS[1])
    write_sae(saes / "broken <&\x1b[31m\u00e9", HOOKS[1])
    (saes / "broken <&\x1b[31m\u00e9" / "cfg.json").write_text("{\x1b[31m")
    runs["hostile"] = gate("-k", "sparsity", saes=saes)
    return runs["hostile"]


def test_hostile_names_are_judged(hostile):
    """Each SAE has its own verdict, however it is called: nothing is merged, lost or counted as unjudged."""
    assert hostile.exit_code == 1
    assert "got no verdict" not in hostile.text
    assert len(set(hostile.record.release.sae_ids)) == len(HOSTILE_NAMES) + 2
    outcomes = [outcome for (_, check), outcome in hostile.outcomes.items() if check == "sparsity"]
    assert sorted(outcomes) == sorted(["passed"] * len(HOSTILE_NAMES) + ["failed", "error"])


@pytest.mark.parametrize("name", ["a::b", "-k", "ctrl\x01\x1b[31m\x7f", "0" * 130 + "a"])
def test_hostile_name_alone(tmp_path, gate, name):
    """A release of one SAE with such a name is green when the SAE is, and its row stands in the table."""
    write_sae(tmp_path / "saes" / name, HOOKS[1])
    run = gate("-k", "sparsity", saes=tmp_path / "saes")
    assert (run.exit_code, run.counts) == (0, {"passed": 1, "deselected": N_CHECKS - 1}), run.text
    (sae_id,) = run.record.release.sae_ids
    assert run.outcomes[sae_id, "sparsity"] == "passed"
    assert any(line.startswith(cut(sae_id, 80)) for line in run.lines)


def test_hostile_names_in_junit(hostile):
    """The XML is well formed and valid, and its properties give the names back."""
    lax().validate(hostile.junit_path)
    assert {sae_id for sae_id, _ in hostile.junit} == set(hostile.record.release.sae_ids)


def test_hostile_names_in_the_terminal(hostile):
    """No control character of a name reaches the terminal."""
    bad = {c for c in hostile.text if not c.isprintable()} - {"\n", "\t"}
    assert bad == set()


def test_hostile_names_in_node_ids(hostile):
    """Node ids are printable ASCII, one per SAE."""
    names = [case.get("name") for case in hostile.junit.values()]
    assert len(set(names)) == len(HOSTILE_NAMES) + 2
    assert all(name.isascii() and name.isprintable() for name in names)


def test_hostile_name_of_a_skipped_check_is_not_a_pass(tmp_path, gate):
    """An SAE with `::` in its name of which nothing is measured leaves the run red like any other."""
    saes = tmp_path / "saes"
    write_sae(saes / "a", HOOKS[0])
    write_sae(saes / "a::b", HOOKS[1], metadata={"context_size": None})
    run = gate("-k", "long_context", saes=saes)
    assert run.exit_code == 1
    assert "no verdict for a::b" in run.text


def test_all_numbers_are_finite(mixed):
    """No number in the record is NaN or infinite: absence is a type."""
    values = [x for r in mixed.record.results for e in r.estimates for x in (e.value, e.low, e.high)]
    assert values
    assert all(math.isfinite(x) for x in values)
