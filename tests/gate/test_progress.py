"""The progress line, by a clock that is turned by hand."""

import io
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_checks.plugin import progress
from sae_checks.plugin.progress import ProgressLine

pytest_plugins = ["pytester"]

N_ALL = 1000


class Clock:
    """Seconds, as the test says."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


class Measuring:
    """Batches of tokens at a steady pace, and the lines that were written meanwhile."""

    def __init__(self, *, moves, planned=None):
        self.clock = Clock()
        self.lines = []
        self.line = ProgressLine(
            lambda text, is_last: self.lines.append((text, is_last)), moves=moves, planned=planned, now=self.clock
        )

    def run(self, *, n_batches, s_per_batch, kind="text", n_all=N_ALL):
        """*n_batches* equal batches; the progress is told at the start and after each, as `corpus_pass` does."""
        self.line.of_kind(kind)(0, n_all)
        for i in range(1, n_batches + 1):
            self.clock.now_s += s_per_batch
            self.line.of_kind(kind)(n_all * i // n_batches, n_all)

    @property
    def texts(self):
        return [text for text, _ in self.lines]


def done_of(text):
    """Tokens done, as a line says."""
    return int(re.search(r": ([\d,]+) of", text)[1].replace(",", ""))


def test_plain_lines_are_ten_seconds_apart():
    """Away from a terminal there is a line every 10 s at most, whatever the passes."""
    measuring = Measuring(moves=False)
    measuring.line.announce("loading gpt2")
    written_s = []
    for kind in ("text", "lambada"):
        for i in range(100):
            n = len(measuring.lines)
            measuring.line.of_kind(kind)(10 * i, N_ALL)
            if len(measuring.lines) > n:
                written_s.append(measuring.clock.now_s)
            measuring.clock.now_s += 0.5
    assert all(10 <= b - a < 11 for a, b in itertools.pairwise(written_s))
    assert len(written_s) in (9, 10)


def test_steps_without_a_count_are_always_announced():
    """The first seconds of a run go by with imports and loading."""
    measuring = Measuring(moves=False)
    for step in ("importing torch and SAE Lens", "loading gpt2", "reading the text"):
        measuring.line.announce(step)
    assert measuring.texts == ["importing torch and SAE Lens", "loading gpt2", "reading the text"]


def test_moving_line_moves_with_every_batch():
    """On a terminal every batch moves the line, and only the last ends it."""
    measuring = Measuring(moves=True)
    measuring.run(n_batches=10, s_per_batch=0.1)
    assert [is_last for _, is_last in measuring.lines] == [False] * 10 + [True]
    assert [done_of(text) for text in measuring.texts] == [100 * i for i in range(11)]


def test_no_time_left_without_a_rate():
    """Before anything is done, and with a clock that stands still, the line claims nothing."""
    measuring = Measuring(moves=True, planned={"text": 1.0})
    measuring.run(n_batches=2, s_per_batch=0)
    assert not any("left" in text for text in measuring.texts)


def test_clock_of_a_pass_that_broke_off():
    """A pass that ended in an error leaves neither its clock nor its count to the next."""
    measuring = Measuring(moves=True)
    measuring.line.of_kind("text")(0, N_ALL)
    measuring.clock.now_s += 3600
    measuring.line.of_kind("text")(100, N_ALL)
    measuring.run(n_batches=10, s_per_batch=10)
    assert measuring.texts[-2].endswith("900 of 1,000 tokens, 10 s left")


def test_the_share_of_the_run():
    """Passes count by their planned work; one that was not planned has no share; at the end all is done."""
    measuring = Measuring(moves=False, planned={"text": 3.0, "studies": 1.0})
    measuring.run(n_batches=3, s_per_batch=10)
    assert measuring.texts[-1].endswith("1,000 of 1,000 tokens; run 75%, about 10 s left")
    measuring.run(n_batches=1, s_per_batch=10, kind="diagnosis")
    assert "run" not in measuring.texts[-1]
    measuring.run(n_batches=2, s_per_batch=10, kind="studies")
    assert measuring.texts[-2].endswith("500 of 1,000 tokens, 10 s left; run 88%, about 10 s left")
    assert measuring.texts[-1].endswith("run 100%")


def test_a_terminal_has_a_bar_of_the_run():
    """In front of the line, which is cut at its end."""
    measuring = Measuring(moves=True, planned={"text": 1.0, "cbt": 1.0})
    measuring.run(n_batches=2, s_per_batch=10)
    assert measuring.texts[-1].startswith("[=====     ] text: ")


class Writer:
    """A terminal of *fullwidth* columns, with *n_used* characters on its line."""

    def __init__(self, fullwidth, n_used):
        self.fullwidth, self.width_of_current_line, self._file = fullwidth, n_used, io.StringIO()


@pytest.mark.parametrize("n_columns", [40, 80, 120, 200])
def test_the_line_is_never_wider_than_the_terminal(n_columns):
    """It is written below the line of pytest's dots, and the cursor goes back there."""
    writer = Writer(n_columns, 7)
    progress._write_below(writer, "x" * 300)
    assert writer._file.getvalue() == "\n" + "x" * (n_columns - 1) + "\x1b[K\x1b[A\r\x1b[7C"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (7100, "118 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds, shown):
    """In the unit that reads best."""
    assert progress.duration(seconds) == shown


def told(s_of_batches):
    """(share done, seconds left as the line says, seconds that were left) with each line of batches so long."""
    measuring = Measuring(moves=True)
    n_batches = len(s_of_batches)
    n_all = 128 * n_batches
    measuring.line.of_kind("text")(0, n_all)
    left_s = sum(s_of_batches)
    for i, s in enumerate(s_of_batches, 1):
        measuring.clock.now_s += s
        left_s -= s
        measuring.line.of_kind("text")(128 * i, n_all)
        if m := re.search(r" tokens, (\d+) s left", measuring.texts[-1]):
            yield i / n_batches, int(m[1]), left_s


@settings(max_examples=200, deadline=None)
@given(
    first=st.floats(1, 10),
    jitters=st.lists(st.floats(0.95, 1.05), min_size=29, max_size=200),
    end=st.floats(0.9, 1.1),
)
def test_time_left_is_right_after_the_first_tenth(first, jitters, end):
    """
    Within 20 %, though the first batch takes up to ten times as long, no two are alike, and the pace drifts.

    At worst 1.05 / 0.95 of the jitters times 1 / 0.945 of the drift that is still to come: 17 %.
    """
    n = len(jitters)
    seconds = [0.3 * first, *(0.3 * jitter * (1 + (end - 1) * i / n) for i, jitter in enumerate(jitters))]
    after = [(says, is_left) for done, says, is_left in told(seconds) if done > 0.1]
    assert len(after) > 0.8 * n
    assert all(abs(says - is_left) <= 0.2 * is_left + 0.5 for says, is_left in after)  # 0.5: whole seconds are told


def test_the_mean_since_the_start_would_be_wrong():
    """What the rule above is for: a first batch of ten times the length is still in the mean when a tenth is done."""
    seconds = [20.0] + [2.0] * 29
    done, says, is_left = next(line for line in told(seconds) if line[0] > 0.1)
    assert says == pytest.approx(is_left, abs=1)
    assert sum(seconds[: round(done * 30)]) / done * (1 - done) > 1.5 * is_left


def test_a_run_tells_what_it_loads(gate):
    """Also where its output is captured; work of less than 10 s leaves no further line."""
    run = gate("--sae-batch-tokens=64")
    steps = [line for line in run.lines if line.startswith(("importing", "loading", "reading", "measuring"))]
    assert steps[:2] == ["importing torch and SAE Lens", "loading model"]
    assert {"reading the text", "reading Lambada", "reading the Children's Book Test"} < {*steps}


@pytest.mark.parametrize("quiet", ["-q", "-qq"])
def test_quiet_says_nothing(gate, quiet):
    """Under -q there is no progress line."""
    run = gate(quiet, "--sae-batch-tokens=64")
    assert (run.exit_code, "loading" in run.text) == (0, False)


@pytest.mark.parametrize("arg", ["-s", "--capture=sys", "--color=yes"])
def test_progress_past_every_capture(gate, arg):
    """However output is captured the line is written once and the run is whole."""
    run = gate(arg)
    assert run.exit_code == 0
    assert run.text.count("reading the text") == 1
