"""What was asked: defaults, the command line over the ini file, and every bad value refused by its flag."""

import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import hostile_names

from sae_checks import errors
from sae_checks.plan import flags, options

COUNTS = {
    "sae_sequences": ("n_sequences", 16),
    "sae_context": ("n_context_tokens", 2),
    "sae_train_context": ("n_train_context_tokens", 1),
    "sae_study_sequences": ("n_study_sequences", 16),
    "sae_seed": ("seed", 0),
    "sae_batch_tokens": ("n_batch_tokens", 1),
}
PATHS = {
    "sae_corpus": "corpus",
    "sae_lambada": "lambada",
    "sae_cbt": "cbt",
    "sae_thresholds": "thresholds",
    "sae_out": "out",
    "sae_baseline": "baseline",
}


def parsed(**raw):
    return options.parse({**flags.defaults(), **raw})


def nothing(_key):
    return None


def test_nothing_asked_gives_the_defaults():
    """What `parse` makes of the defaults is what `Options` has as defaults."""
    assert parsed(sae_release="demo") == options.Options(release="demo")


def test_every_option_is_parsed():
    """Every flag that pytest offers changes the options; none does nothing."""
    asked = {
        "sae_release": "r",
        "sae_name": "n",
        "sae_allow_pickle": "yes",
        "sae_id": ["a*", "b*"],
        "sae_shard": "2/3",
        "sae_model": "m",
        "sae_corpus": "c.txt",
        "sae_lambada": "l.jsonl",
        "sae_cbt": ":NE",
        "sae_profile": "smoke",
        "sae_sequences": "17",
        "sae_context": "5",
        "sae_train_context": "7",
        "sae_study_sequences": "19",
        "sae_memory": "2.5",
        "sae_seed": "11",
        "sae_device": "cpu",
        "sae_dtype": "bfloat16",
        "sae_batch_tokens": "13",
        "sae_special_tokens": "replace,no-bos",
        "sae_thresholds": "t.toml",
        "sae_out": "out",
        "sae_history": "memory://runs",
        "sae_baseline": "last",
        "sae_explain": ["a*", "c"],
    }
    assert set(asked) == {spec.key for spec in flags.SPECS}
    assert parsed(**asked) == options.Options(
        release="r",
        name="n",
        allow_pickle=True,
        sae_ids=("a*", "b*"),
        shard="2/3",
        model="m",
        corpus="c.txt",
        lambada="l.jsonl",
        cbt=":NE",
        profile="smoke",
        n_sequences=17,
        n_context_tokens=5,
        n_train_context_tokens=7,
        n_study_sequences=19,
        memory_gib=2.5,
        seed=11,
        device="cpu",
        dtype="bfloat16",
        n_batch_tokens=13,
        special_tokens="replace",
        bos="no-bos",
        thresholds=Path("t.toml"),
        out=Path("out"),
        history="memory://runs",
        baseline="last",
        explain=("a*", "c"),
    )


def test_flags_and_ini_keys_go_together():
    """Every flag starts with --sae-, and its ini key is the flag with underscores."""
    for spec in flags.SPECS:
        assert re.fullmatch(r"--sae-[a-z-]+", spec.flag)
        assert "--" + spec.key.replace("_", "-") == spec.flag


def test_options_stand_by_group():
    """The table has the order of the groups, and no group is empty."""
    assert list(dict.fromkeys(spec.group for spec in flags.SPECS)) == list(flags.GROUPS)
    in_order = sorted(flags.SPECS, key=lambda spec: flags.GROUPS.index(spec.group))
    assert in_order == list(flags.SPECS)


def test_every_example_is_a_value():
    """What a message proposes is accepted, and an option with choices proposes one of them."""
    for spec in flags.SPECS:
        assert spec.is_switch == (spec.example == "")
        assert not spec.choices or spec.example in spec.choices
        parsed(**{spec.key: [spec.example] if spec.repeatable else spec.example or "yes"})
    assert "try:      --sae-device=auto" in str(flags.bad_value("sae_device", "gpu", "one of ..."))


def test_a_switch_is_on_where_either_says_so():
    """A switch of the command line or of the ini file (a bool there) is on, and off where neither has it."""
    on, off = {"sae_allow_pickle": True}.get, {"sae_allow_pickle": False}.get
    for given_, ini, expected in ((nothing, off, False), (on, off, True), (nothing, on, True)):
        raw = flags.gather(given_, ini)
        assert options.parse({**raw, "sae_release": "r"}).allow_pickle is expected


@pytest.mark.parametrize("spec", [s for s in flags.SPECS if not s.is_switch], ids=lambda spec: spec.key)
def test_command_line_over_ini_over_default(spec):
    """The command line wins over the ini file, the ini file over the default."""
    listed = (lambda value: [value]) if spec.repeatable else (lambda value: value)

    def ini(key):
        return listed("2") if key == spec.key else None

    def given_(key):
        return listed("3") if key == spec.key else None

    assert flags.gather(nothing, nothing)[spec.key] == spec.default
    assert flags.gather(nothing, ini)[spec.key] == listed("2")
    assert flags.gather(given_, nothing)[spec.key] == listed("3")
    assert flags.gather(given_, ini)[spec.key] == listed("3")


def test_a_seed_of_zero_on_the_command_line_is_not_nothing():
    """`--sae-seed 0` wins over the ini file's seed although zero is falsy."""
    raw = flags.gather({"sae_seed": "0"}.get, {"sae_seed": "5"}.get)
    assert options.parse(raw).seed == 0


def test_an_empty_ini_file_leaves_the_defaults():
    """pytest gives '' and [] for ini keys that are not set: they are not values."""
    empty = {spec.key: [] if spec.repeatable else "" for spec in flags.SPECS}
    assert flags.gather(nothing, empty.get) == flags.defaults()


def test_one_pattern_as_text_is_a_list_of_one():
    """A single --sae-id may come as text."""
    assert parsed(sae_id="blocks.*").sae_ids == ("blocks.*",)
    assert parsed(sae_explain="blocks.*").explain == ("blocks.*",)


@pytest.mark.parametrize("key", COUNTS)
@given(number=st.integers(-(10**20), 10**20))
def test_whole_numbers_from_the_least_upwards(key, number):
    """A whole number is taken as it is from the least allowed upwards, and refused by its flag below."""
    field, least = COUNTS[key]
    if number >= least or (number == 0 and key == "sae_study_sequences"):
        assert getattr(parsed(**{key: str(number)}), field) == number
    else:
        with pytest.raises(errors.UsageError, match=f"--{key.replace('_', '-')} .*"):
            parsed(**{key: str(number)})


@pytest.mark.parametrize("key", COUNTS)
@given(text=st.text(min_size=1) | hostile_names)
def test_what_is_no_whole_number_is_refused(key, text):
    """Any other text is refused by its flag, never guessed at."""
    assume(not re.fullmatch(r"\s*[+-]?\d[\d_]*\s*", text))
    with pytest.raises(errors.UsageError, match=f"--{key.replace('_', '-')} "):
        parsed(**{key: text or " "})


@pytest.mark.parametrize("text", ["1e3", "2.0", " ", "0x10", "ten", "nan", "1,000", "9" * 5000])
def test_numbers_in_other_forms_are_refused(text):
    """Only plain whole numbers: no exponent, no point, no prefix, nothing too long to be meant."""
    with pytest.raises(errors.UsageError, match="--sae-sequences "):
        parsed(sae_sequences=text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sae_device", "gpu"),
        ("sae_device", "CPU"),
        ("sae_device", ""),
        ("sae_dtype", "float64"),
        ("sae_dtype", "int8"),
    ],
)
def test_a_value_outside_its_choices_is_refused(key, value):
    """The message names the flag, and lists the choices."""
    with pytest.raises(errors.UsageError, match=f"--{key.replace('_', '-')} ") as caught:
        parsed(**{key: value})
    assert "one of " in str(caught.value)


@pytest.mark.parametrize("device", flags.DEVICES)
@pytest.mark.parametrize("dtype", flags.DTYPES)
def test_every_choice_is_taken(device, dtype):
    """Every device goes with every dtype as far as options are concerned."""
    asked = parsed(sae_device=device, sae_dtype=dtype)
    assert (asked.device, asked.dtype) == (device, dtype)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("keep", ("keep", "auto")),
        ("replace", ("replace", "auto")),
        ("no-bos", ("keep", "no-bos")),
        ("bos,keep", ("keep", "bos")),
        ("replace, no-bos", ("replace", "no-bos")),
    ],
)
def test_a_rule_for_special_tokens(rule, expected):
    """Two parts in any order, each of which may be left out."""
    asked = parsed(sae_special_tokens=rule)
    assert (asked.special_tokens, asked.bos) == expected


@pytest.mark.parametrize("rule", ["drop", "on", "True", ",", "keep,", "keep,replace", "bos,no-bos", "keep,auto,bos"])
def test_another_rule_for_special_tokens_is_refused(rule):
    """The message names the flag, and lists what there is."""
    with pytest.raises(errors.UsageError, match="--sae-special-tokens ") as caught:
        parsed(sae_special_tokens=rule)
    assert "auto, bos or no-bos" in str(caught.value)


def test_out_is_where_record_and_report_go():
    """Both lie in the folder of --sae-out, and without it there is neither."""
    asked = parsed(sae_out="gate/out")
    assert (asked.record, asked.report) == (Path("gate/out/record.json"), Path("gate/out/report"))
    assert (parsed().record, parsed().report) == (None, None)


def test_the_text_itself_cannot_be_switched_off():
    """Lambada and the Children's Book Test can be left out, the text cannot; the message says why."""
    assert (parsed(sae_lambada="none").lambada, parsed(sae_cbt="none").cbt) == ("none", "none")
    with pytest.raises(errors.UsageError, match="--sae-corpus cannot be 'none'") as caught:
        parsed(sae_corpus="none")
    assert "every SAE is judged on text" in str(caught.value)


@pytest.mark.parametrize(("key", "field"), PATHS.items())
def test_the_home_folder_is_expanded(key, field, tmp_path, monkeypatch):
    """`~` means the home folder in every path, as an ini file writes it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(getattr(parsed(**{key: "~/file"}), field)) == str(tmp_path / "file")


@pytest.mark.parametrize("key", PATHS)
def test_the_home_folder_of_nobody_is_refused(key):
    """A home folder that cannot be found is a value that cannot be used, said by its flag."""
    with pytest.raises(errors.UsageError, match=f"--{key.replace('_', '-')} "):
        parsed(**{key: "~no-such-user-here/file"})


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        ({}, (256, 1000, 200)),
        ({"sae_profile": "smoke"}, (64, 250, 50)),
        ({"sae_profile": "smoke", "sae_sequences": "16"}, (16, 62, 16)),
    ],
)
def test_a_profile_sets_what_was_not_asked_for(asked, sizes):
    """Smoke takes a quarter of everything; passages and queries follow the sequences."""
    found = parsed(**asked)
    assert (found.n_sequences, found.n_items, found.n_queries) == sizes
    assert found.profile == asked.get("sae_profile", "release")
