"""The tables of a file of limits, matched with a release."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import hostile_names

from sae_checks import errors
from sae_checks.comparing.calibration import pattern_of, quoted
from sae_checks.judging import own_limits, thresholds

LIMIT = 'measure = "ce_increase"\nmax = 0.1\nunit = "nats/token"\nsource = "test"\n'
STACKED = LIMIT.replace("ce_increase", "stack_ce_increase")
MARGIN = LIMIT.replace("max", "margin")
GOLDEN = """prompt = "a"
answer = " b"
probability_clean = 0.5
probability_spliced = 0.5
tolerance = 0.1
bos = true
special_tokens = "keep"
source = "test"
"""
SHIFT = """[[accepted_shift]]
release = "*"
sae = "*"
measure = "ce_increase"
since = 2026-11-22
reason = "test"
"""
SUBJECTS = {"sae": ("blocks.0.x", "blocks.1.x"), "stack": ("all of resid",)}


@pytest.fixture
def match(tmp_path):
    """What becomes of a file of these tables for a release of this name."""

    def matched(release, *tables, file="lim.toml", subjects=SUBJECTS):
        path = tmp_path / file
        path.write_text("schema = 1\n" + "\n".join(tables))
        return own_limits.match(thresholds.load(path), release, subjects)

    return matched


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ('[release."my-*".ce_loss]', LIMIT),
        ('[release."my-saes".sae."blocks.1*".ce_loss]', LIMIT),
        ('[release."my-saes".sae."all of *".stacked]', STACKED),
        ('[release."my-saes".stacked]', STACKED),
        ('[release."my-saes".regression.ce_loss]', MARGIN),
        ('[[release."my-saes".sae."blocks.0.x".golden]]', GOLDEN),
    ],
)
def test_a_table_matches_a_release_and_one_of_its_saes_or_stacks(match, header, body):
    """With one table that matches the file applies; with the same table for others it is an error that names it."""
    assert match("my-saes", f"{header}\n{body}") == own_limits.OwnLimits(file="lim.toml", n_tables=1, unmatched=())
    others = {"sae": ("other",), "stack": ("other",)}
    for release, subjects in (("other", SUBJECTS), ("my-saes", others)):
        if release != "other" and ".sae." not in header:
            continue
        with pytest.raises(errors.UsageError) as caught:
            match(release, f"{header}\n{body}", subjects=subjects)
        what, _, got, attempt = str(caught.value).splitlines()
        assert what == f"no table of lim.toml matches release {release!r}, so its limits would not apply"
        assert got == f"  got:      {header}"
        assert ("--sae-name=" in attempt) == (release == "other")


def test_tables_that_match_nothing_are_listed(match):
    """In the order of the file: another release, no such SAE, and a check of stacks for an SAE."""
    found = match(
        "my-saes",
        f"[default.ce_loss]\n{LIMIT}",
        f'[release."my-saes".sae."blocks.9.x".ce_loss]\n{LIMIT}',
        f'[release."my-saes".sae."blocks.0.x".stacked]\n{STACKED}',
        f'[release."my-saes".sae."blocks.0.x".ce_loss]\n{LIMIT}',
        f'[release."foo".ce_loss]\n{LIMIT}',
    )
    assert found == own_limits.OwnLimits(
        file="lim.toml",
        n_tables=5,
        unmatched=(
            '[release."foo".ce_loss]',
            '[release."my-saes".sae."blocks.9.x".ce_loss]',
            '[release."my-saes".sae."blocks.0.x".stacked]',
        ),
    )


def test_the_name_to_try_is_the_one_that_most_tables_are_for(match):
    """A pattern that calibration has escaped is tried as the name that it stands for."""
    tables = (
        f'[release."a".ce_loss]\n{LIMIT}',
        f'[release."step[*]1".sae."blocks.0.x".ce_loss]\n{LIMIT}',
        f'[release."step[*]1".sae."blocks.1.x".ce_loss]\n{LIMIT}',
    )
    with pytest.raises(errors.UsageError, match=r"try:      --sae-name='step\*1'"):
        match("step_10000", *tables)


@given(name=st.text(min_size=1) | hostile_names, other=st.text())
def test_what_is_calibrated_under_a_name_applies_under_it_alone(tmp_path_factory, name, other):
    """Whatever the name contains: the file applies to it; to another it does not, and the name is what to try."""
    path = tmp_path_factory.getbasetemp() / "calibrated.toml"
    header = f"[release.{quoted(pattern_of(name))}.ce_loss]"
    path.write_text(f"schema = 1\n{header}\n{LIMIT}", encoding="utf-8")
    written = thresholds.load(path)
    assert own_limits.match(written, name, SUBJECTS).unmatched == ()
    if other != name:
        with pytest.raises(errors.UsageError) as caught:
            own_limits.match(written, other, SUBJECTS)
        assert str(caught.value).endswith(f"  try:      {errors.typed('--sae-name', name)}")


def test_a_file_without_tables_applies_to_nothing(match):
    """Unless it is a file of accepted shifts, which are no limits."""
    assert match("my-saes", SHIFT) == own_limits.OwnLimits(file="lim.toml", n_tables=0, unmatched=())
    with pytest.raises(errors.UsageError, match=r"no table of lim\.toml matches"):
        match("my-saes")


def test_the_two_files_are_told_apart(match):
    """A file that is called as the shipped one is named with its folder."""
    found = match("my-saes", f"[default.ce_loss]\n{LIMIT}", file="thresholds.toml")
    assert found.file.endswith("/thresholds.toml")


def test_without_a_file_nothing_is_matched():
    """The shipped file has tables for other releases, which are no error."""
    assert own_limits.match(thresholds.load(), "my-saes", SUBJECTS) is None
