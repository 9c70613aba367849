"""Accepted shifts: read, applied to what they name, and refused by line where they are not understood."""

import tomllib
from datetime import UTC, datetime

import pytest

from sae_checks import errors
from sae_checks.judging import accepted_shifts, thresholds

GOOD = """schema = 1

[[accepted_shift]]
release = "my-*"
sae = "blocks.[01].*"
measure = "ce_increase"
since = 2026-09-14
reason = "trained again on cleaner text"
"""


@pytest.fixture
def write(tmp_path):
    """A thresholds file of that text."""

    def written(text):
        path = tmp_path / "own.toml"
        path.write_text(text)
        return path

    return written


def test_a_shift_is_read_and_applies_to_what_it_names(write):
    """By release, SAE and measure; from the first moment of its day on."""
    (shift,) = accepted_shifts.load([write(GOOD)])
    assert shift.since == datetime(2026, 9, 14, tzinfo=UTC)
    assert (shift.reason, shift.where) == ("trained again on cleaner text", "own.toml line 3 [[accepted_shift]]")
    assert shift.applies("my-saes", "blocks.1.hook_resid_pre", "ce_increase")
    for other in (
        ("saes", "blocks.1.x", "ce_increase"),
        ("my-x", "blocks.2.x", "ce_increase"),
        ("my-x", "blocks.1.x", "kl"),
    ):
        assert not shift.applies(*other)


@pytest.mark.parametrize("since", ["2026-09-14T02:00:00+02:00", '"2026-09-14"', "2026-09-14T00:00:00", "2026-09-14"])
def test_times_are_utc(write, since):
    """A date, a time of any zone, or the text of one."""
    (shift,) = accepted_shifts.load([write(GOOD.replace("2026-09-14", since))])
    assert shift.since == datetime(2026, 9, 14, tzinfo=UTC)


def test_shifts_of_several_files(write):
    """The shipped file has none, and is asked, too."""
    twice = GOOD + GOOD.removeprefix("schema = 1\n")
    found = accepted_shifts.load([write(twice), thresholds.shipped_path()])
    assert [shift.where for shift in found] == [
        "own.toml line 3 [[accepted_shift]]",
        "own.toml line 10 [[accepted_shift]]",
    ]


BAD = {
    "no reason": (lambda text: text.replace('"trained again on cleaner text"', '" "'), "line 10", "reason = a text"),
    "no since": (lambda text: text.replace("since = 2026-09-14\n", ""), "line 10", "since = 2026-11-22"),
    "no date": (lambda text: text.replace("2026-09-14", '"last week"'), "line 10", "since = 2026-11-22"),
    "a number": (lambda text: text.replace("2026-09-14", "20260914"), "line 10", "since = 2026-11-22"),
    "no measure": (lambda text: text.replace('"ce_increase"', '"ce_rise"'), "line 10", "docs/record.md"),
    "another key": (lambda text: text + 'check = "ce_loss"\n', "line 10", "one of release, sae"),
    "no text": (lambda text: text.replace('"my-*"', "3"), "line 10", "release = a text"),
}


@pytest.mark.parametrize(("spoil", "line", "expected"), BAD.values(), ids=BAD)
@pytest.mark.parametrize(
    "read", [lambda path: accepted_shifts.load([path]), thresholds.load], ids=["alone", "with the limits"]
)
def test_what_is_not_understood_is_refused_with_its_line(write, spoil, line, expected, read):
    """The second of two: wherever the file is read, its line and what is expected."""
    path = write(GOOD + spoil(GOOD.removeprefix("schema = 1\n")))
    with pytest.raises(errors.UsageError) as refused:
        read(path)
    assert line in str(refused.value).splitlines()[0]
    assert expected in str(refused.value)


@pytest.mark.parametrize("text", ["accepted_shift = 3", "[accepted_shift]\nreason = 'x'", "accepted_shift = [1]"])
def test_no_list_of_tables(write, text):
    """With the line at which it stands, where it is found."""
    with pytest.raises(errors.UsageError, match=r"\[\[accepted_shift\]\]"):
        thresholds.load(write(f"schema = 1\n{text}\n"))


def test_a_header_within_a_text_does_not_shift_the_lines(write):
    """Then the number of the entry is told."""
    text = GOOD.replace('"trained again on cleaner text"', '"""\n[[accepted_shift]]\n"""') + GOOD.removeprefix(
        "schema = 1\n"
    )
    found = accepted_shifts.load([write(text)])
    assert [shift.where for shift in found] == [
        "own.toml [[accepted_shift]] number 1",
        "own.toml [[accepted_shift]] number 2",
    ]


def test_a_file_that_is_no_toml(write, tmp_path):
    """Or is not there."""
    for path in (write("schema = "), tmp_path / "none.toml"):
        with pytest.raises(errors.UsageError, match="cannot be read"):
            accepted_shifts.load([path])


def test_limits_are_what_they_were(write):
    """A shift changes no limit and no margin."""
    assert thresholds.load(write(GOOD)).find("my-x", "blocks.0.x", "ce_loss") == thresholds.load().find(
        "x", "x", "ce_loss"
    )
    assert tomllib.loads(GOOD)["schema"] == 1
