"""Every message a user can meet, rendered: four parts, one type of this package, picklable, printable."""

import ast
import inspect
import pickle
import typing
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import HOSTILE, hostile_names

from sae_checks import errors

BUILDERS = {"shown", "said"}
"""What messages are made with; every other public function of errors.py is a message."""

SAMPLES = {str: "a-name", int: 7, float: 2.5, Sequence[str]: ["first", "second"]}


def _is_message(name):
    return not name.startswith("_") and name not in BUILDERS


def _messages():
    functions = inspect.getmembers(errors, inspect.isfunction)
    return [f for name, f in functions if f.__module__ == errors.__name__ and _is_message(name)]


MESSAGES = _messages()
every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda f: f.__name__)


def _arguments(message, samples):
    hints = typing.get_type_hints(message)
    return {name: samples[hints[name]] for name in inspect.signature(message).parameters}


def _render(message, samples=SAMPLES):
    return message(**_arguments(message, samples))


@every_message
def test_a_message_has_four_parts(message):
    """What is wrong, then expected, got and try: one line each, none of them empty."""
    what, expected, got, attempt = str(_render(message)).split("\n")
    assert what.strip() == what != ""
    for line, head in ((expected, "  expected: "), (got, "  got:      "), (attempt, "  try:      ")):
        assert line.startswith(head)
        assert line.removeprefix(head).strip()


@every_message
def test_a_message_is_one_exception_of_this_package_or_text(message):
    """The annotation tells the truth, and exceptions carry exactly one string."""
    rendered = _render(message)
    assert type(rendered) is typing.get_type_hints(message)["return"]
    if not isinstance(rendered, str):
        assert isinstance(rendered, errors.SaeChecksError)
        assert [type(arg) for arg in rendered.args] == [str]


@every_message
def test_a_message_survives_the_way_to_another_process(message):
    """Pickled and unpickled, it is the same type with the same words."""
    rendered = _render(message)
    back = pickle.loads(pickle.dumps(rendered))
    assert (type(back), str(back)) == (type(rendered), str(rendered))


@every_message
def test_a_message_prints_nothing_but_its_four_lines(message):
    """Whatever its arguments hold, no control character reaches the terminal and no line is added."""
    for name in HOSTILE:
        lines = str(_render(message, {**SAMPLES, str: name, Sequence[str]: [name] * 20})).split("\n")
        assert [line for line in lines if not line.isprintable()] == []
        assert len(lines) == 4


@every_message
def test_a_message_can_list_nothing(message):
    """An empty list of names is said in words, not as an exception."""
    assert len(str(_render(message, {**SAMPLES, Sequence[str]: []})).split("\n")) == 4


def test_every_message_is_rendered_here():
    """Every function that builds the four parts is among the messages above, and each takes what SAMPLES has."""
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    saying = {f.name for f in functions if any(isinstance(n, ast.Name) and n.id == "said" for n in ast.walk(f))}
    assert saying == {f.__name__ for f in MESSAGES} == {f.name for f in functions if _is_message(f.name)}
    for message in MESSAGES:
        assert _arguments(message, SAMPLES) is not None


def test_every_message_can_be_met():
    """A message that nothing in the package raises or prints is dead text."""
    package = Path(errors.__file__).parent
    sources = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    assert [f.__name__ for f in MESSAGES if f"errors.{f.__name__}(" not in sources] == []


def test_exceptions_have_one_root():
    """Whoever catches SaeChecksError catches all that the package says on purpose."""
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert {errors.UsageError, errors.SaeError, errors.MeasuringError, errors.RecordError} < {*classes}
    assert all(issubclass(c, errors.SaeChecksError) for c in classes)


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
