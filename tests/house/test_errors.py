"""Every message a user can meet, rendered: its parts, one type of this package, picklable, printable."""

import ast
import inspect
import pickle
import re
import typing
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import HOSTILE, hostile_names

from sae_checks import errors
from sae_checks.commands import main
from sae_checks.plan import flags

FOLDER = Path(errors.__file__).parent
BUILDERS = {"shown", "listed", "message", "typed"}
"""What messages are made with; every other public function of `errors` is a message."""
SAMPLES = {str: "a-name", int: 7, float: 2.5, Sequence[str]: ["first", "second"]}
NAMED = [(name, getattr(errors, name)) for name in errors.__all__]
MESSAGES = {name: found for name, found in NAMED if inspect.isfunction(found) and name not in BUILDERS}
CLASSES = [found for _, found in NAMED if inspect.isclass(found)]


def render(message, samples=SAMPLES):
    hints = typing.get_type_hints(message)
    return message(**{name: samples[hints[name]] for name in inspect.signature(message).parameters})


RENDERED = {name: render(message) for name, message in MESSAGES.items()}


PARTS = ["  expected: ", "  got:      ", "  try:      "]
TYPED = re.compile(
    r"--sae-[a-z-]+|-k |(HF_HUB_OFFLINE=1 )?pytest |sae-checks [a-z]+|hf auth login|pip install |unset HF_HUB_OFFLINE"
    r"|sae_checks\.judge\(|sae\.[a-z_]+\(|AutoModel\S+\(|safetensors\.torch\.|a-name"
)


def test_a_message_has_its_parts():
    """What is wrong, then expected, got and mostly try: one line each, none of them empty."""
    for name, rendered in RENDERED.items():
        what, *others = str(rendered).split("\n")
        assert what.strip() == what != "", name
        assert [line[:12] for line in others] in (PARTS, PARTS[:2]), name
        assert all(line[12:].strip() for line in others), name


def test_what_a_message_says_to_try_can_be_typed():
    """It begins with an option, a command or a call; where there is none, the line is absent."""
    for name, rendered in RENDERED.items():
        for attempt in str(rendered).split("\n")[3:]:
            assert TYPED.match(attempt[12:]), (name, attempt)


def test_a_message_is_one_exception_of_this_package_or_text():
    """The annotation tells the truth, and exceptions carry exactly one string."""
    for name, rendered in RENDERED.items():
        assert type(rendered) is typing.get_type_hints(MESSAGES[name])["return"]
        if not isinstance(rendered, str):
            assert isinstance(rendered, errors.SaeChecksError), name
            assert [type(arg) for arg in rendered.args] == [str], name


def test_a_message_survives_the_way_to_another_process():
    """Pickled and unpickled, it is the same type with the same words."""
    for name, rendered in RENDERED.items():
        back = pickle.loads(pickle.dumps(rendered))
        assert (type(back), str(back)) == (type(rendered), str(rendered)), name


def test_a_message_prints_nothing_but_its_lines():
    """Whatever its arguments hold, no control character reaches the terminal and no line is added."""
    for name, message in MESSAGES.items():
        for hostile in HOSTILE:
            lines = str(render(message, {**SAMPLES, str: hostile, Sequence[str]: [hostile] * 20})).split("\n")
            assert [line for line in lines if not line.isprintable()] == [], name
            assert len(lines) <= 4, name


def test_a_message_says_that_a_name_is_empty():
    """No line is empty where a name or a list is."""
    for name, message in MESSAGES.items():
        for empty in ({str: ""}, {Sequence[str]: []}):
            lines = str(render(message, {**SAMPLES, **empty})).split("\n")
            assert len(lines) in (3, 4), name
            assert all(line[12:].strip() for line in lines[1:]), name


def test_every_message_is_rendered_here():
    """Whatever builds these parts is public, and stands in the file of its subject."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.py")]
    functions = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    building = {f.name for f in functions if any(isinstance(n, ast.Name) and n.id == "message" for n in ast.walk(f))}
    assert building == {*MESSAGES}


def test_a_message_names_what_there_is():
    """Every option and every command in a message exists."""
    text = "\n".join(map(str, RENDERED.values()))
    assert set(re.findall(r"--sae-[a-z-]*[a-z]", text)) <= {spec.flag for spec in flags.SPECS}
    for command in set(re.findall(r"sae-checks ([a-z]+)", text)):
        with pytest.raises(SystemExit, match="0"):
            main.main([command, "--help"])


def test_every_message_can_be_met():
    """A message that nothing in the package raises or prints is dead text."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in FOLDER.parent.rglob("*.py"))
    assert [name for name in MESSAGES if f"errors.{name}(" not in sources] == []


def test_exceptions_have_one_root():
    """Whoever catches SaeChecksError catches all that the package says on purpose."""
    assert {errors.UsageError, errors.SaeError, errors.MeasuringError, errors.RecordError} < {*CLASSES}
    assert all(issubclass(c, errors.SaeChecksError) for c in CLASSES)


@given(st.text() | hostile_names, st.integers(4, 200))
def test_shown_text_is_one_short_printable_line(text, n_most):
    """Whatever comes in: printable, at most so many characters, and showing it again changes nothing."""
    shown = errors.shown(text, n_most=n_most)
    assert shown.isprintable()
    assert len(shown) <= n_most
    assert errors.shown(shown, n_most=n_most) == shown


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S"))))
def test_plain_text_is_shown_as_it_is(text):
    """Nothing printable is escaped: names in any script stay readable."""
    assert errors.shown(text, n_most=len(text) + 3) == text
