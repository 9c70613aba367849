"""The documents keep up with the code: checks, measures, limits, options and rooms are in them, and links lead on."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import test_floors

import sae_checks
from sae_checks import checks
from sae_checks.comparing import calibration
from sae_checks.judging import thresholds
from sae_checks.plan import flags, options_page
from sae_checks.record.schema import json_schema

ROOT = Path(__file__).parents[2]
README, ARCHITECTURE, CONTRIBUTING, CHANGELOG, SECURITY = (
    ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "SECURITY")
)
DOCUMENTS = (README, ARCHITECTURE, CONTRIBUTING, CHANGELOG, SECURITY, *sorted((ROOT / "docs").glob("*.md")))
LINES = ("Asks", "Measure", "Default limit", "Red means", "Cannot see")
"""how each check's section of docs/checks.md opens."""
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def text_of(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def without_code(text):
    """*text* less its fenced blocks: what looks like a heading or a link there is none."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def sections(text):
    """By heading of the second level, what stands below it."""
    _, *found = re.split(r"^## +(.+)$", text, flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


def words(text):
    """Everything written as code, word by word."""
    return {
        word
        for code in re.findall(r"`([^`\n]+)`|^```$(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for part in code
        for word in re.findall(r"[\w*-]+", part)
    }


def anchors(text):
    """What GitHub calls the headings of *text*."""
    headings = re.findall(r"^#+ +(.+)$", without_code(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(document, text):
    """Links of *text*, which stands where *document* does, that lead to no file or no heading of it."""
    for target in LINK.findall(without_code(text)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        place = (document.parent / path) if path else document
        text_there = (
            text if place == document else place.read_text(encoding="utf-8") if anchor and place.is_file() else None
        )
        if not place.exists() or (anchor and anchor not in anchors(text_there or "")):
            yield target


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_every_check_has_its_page(check):
    """The section opens with the same five lines, and names each measure, or several as `accuracy_*`."""
    of_check = sections(text_of("checks.md"))[check.name]
    opening = of_check.strip().partition("\n\n")[0]
    assert re.findall(r"^- \*\*(.+?)\*\*", opening, re.MULTILINE) == [*LINES]
    named = {word for word in words(of_check) if word.strip("*_")}
    missing = [m.name for m in check.measures if not any(fnmatch(m.name, word) for word in named)]
    assert missing == []


def test_the_checks_are_listed_in_the_catalogue_s_order():
    """In the head of docs/checks.md, and in its sections."""
    text = text_of("checks.md")
    names = [check.name for check in checks.CHECKS]
    assert re.findall(r"\[`(\w+)`\]\(#\1\)", text.partition("\n## ")[0]) == names
    assert [name for name in sections(text) if name in names] == names


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_every_measure_is_in_the_record_s_table(check):
    """A row of docs/record.md names the measure, with its unit."""
    table = sections(text_of("record.md"))["Measures"].splitlines()
    for measure in check.measures:
        rows = [row for row in table if f"`{measure.name}`" in row]
        assert rows, measure.name
        assert any(unit in row for row in rows for unit in (measure.unit, measure.unit.removesuffix("s"))), measure


@pytest.mark.parametrize(
    "check", [check for check in checks.CHECKS if not check.is_exact], ids=lambda check: check.name
)
def test_the_limits_that_ship_are_those_that_are_written_down(check):
    """Measure, side, number and unit of each default, in the check's own section."""
    limits = thresholds.load().find("a release", "an SAE", check.name)
    of_check = sections(text_of("checks.md"))[check.name]
    if not limits:
        assert check.is_optional
        assert "**Default limit** none: reported" in of_check
    for limit in limits:
        assert f"**Measure** `{limit.measure}`, {limit.unit}." in of_check
        assert f"**Default limit** {limit.kind} {limit.value:g} {limit.unit}" in of_check


def test_the_rule_of_calibrating_is_the_one_that_is_written_down():
    """As the head of every calibrated file has it."""
    assert f"```\n{calibration._RULE}\n```" in text_of("thresholds.md")


def test_the_readme_s_checks_are_checks():
    """Each row of its table links to the check's own section."""
    rows = re.findall(r"^\| \[`(\w+)`\]\(docs/checks\.md#(\w+)\)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 5
    assert {name for row in rows for name in row} <= {check.name for check in checks.CHECKS}


def test_the_page_of_options_is_the_one_that_is_made():
    """From the table behind --help."""
    command = "python -m sae_checks.plan.options_page > docs/options.md"
    assert text_of("options.md") == options_page.page(), f"run: {command}"


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d != CHANGELOG], ids=lambda document: document.name)
def test_no_document_names_an_option_that_does_not_exist(document):
    """CHANGELOG may: it says what was removed."""
    named = set(re.findall(r"--sae-[a-z-]*[a-z]", document.read_text(encoding="utf-8")))
    assert named - {spec.flag for spec in flags.SPECS} == set()


def test_every_field_of_the_record_is_written_down():
    """Every key of the schema, and every outcome, as code."""

    def keys(schema):
        if isinstance(schema, list):
            return {key for entry in schema for key in keys(entry)}
        if not isinstance(schema, dict):
            return set()
        return {*schema.get("properties", {})} | {key for value in schema.values() for key in keys(value)}

    schema = json_schema()
    text = text_of("record.md")
    outcomes = schema["$defs"]["ResultRow"]["properties"]["outcome"]["enum"]
    assert {*keys(schema), *outcomes} - words(text) - set(re.findall(r'"(\w+)":', text)) == set()


def test_the_table_of_rooms_is_the_package():
    """Every room of the package stands in ARCHITECTURE.md, in the order in which rooms may import each other."""
    rows = re.findall(r"^\| (`[^|]+) \|", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE)
    named = [room for row in rows for room in re.findall(r"`(\w+)/?`", row) if room != "studies"]
    places = Path(sae_checks.__file__).parent.iterdir()
    package = {p.stem for p in places if (p.suffix == ".py" or (p / "__init__.py").exists())} - {"__init__"}
    assert named == [room for room in test_floors.ORDER if room in package]
    assert {*named} == package


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document):
    """To a file of the checkout, and to a heading that it has."""
    assert list(dead_links(document, document.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("link", ["[a](docs/nowhere.md)", "[a](docs/checks.md#nowhere)", "[a](#nowhere)"])
def test_a_dead_link_is_found(link):
    """The test above goes red."""
    assert len(list(dead_links(README, f"# Here\n{link}"))) == 1


def test_what_is_in_a_code_block_is_no_link():
    """And a heading that is there is found, however it is spelt."""
    assert (
        list(dead_links(README, "# Golden prompts, `and` more\n```\n[a](b)\n```\n[a](#golden-prompts-and-more)")) == []
    )
