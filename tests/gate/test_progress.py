"""The progress line, by a clock that is turned by hand."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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

    def __init__(self, *, moves):
        self.clock = Clock()
        self.lines = []
        self.line = ProgressLine(lambda text, is_last: self.lines.append((text, is_last)), moves=moves, now=self.clock)

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


def rate_of(text):
    """Tokens per second, as a line says."""
    return float(re.search(r"([\d,]+) tokens/s", text)[1].replace(",", ""))


def test_plain_lines_are_ten_seconds_apart():
    """Away from a terminal there is a line every 10 s at most, and one at the end."""
    measuring = Measuring(moves=False)
    measuring.run(n_batches=100, s_per_batch=0.5)
    done = [done_of(text) for text in measuring.texts]
    gaps_s = [(b - a) / N_ALL * 50 for a, b in itertools.pairwise(done)]
    assert done[-1] == N_ALL
    assert all(gap >= 10 for gap in gaps_s[:-1])
    assert 4 <= len(done) <= 6


def test_plain_line_at_the_end_of_quick_work():
    """Work of less than 10 s leaves one plain line, its end."""
    measuring = Measuring(moves=False)
    measuring.run(n_batches=8, s_per_batch=1)
    assert len(measuring.lines) == 1
    assert measuring.lines[0][1]
    assert measuring.texts[0].startswith("measuring text: 1,000 of 1,000 tokens")


def test_single_batch_is_told():
    """A corpus of one batch has one line, with its rate."""
    measuring = Measuring(moves=False)
    measuring.run(n_batches=1, s_per_batch=2)
    assert measuring.lines == [("measuring text: 1,000 of 1,000 tokens, 500 tokens/s, in 2 s", True)]


def test_moving_line_moves_with_every_batch():
    """On a terminal every batch moves the line, and only the last ends it."""
    measuring = Measuring(moves=True)
    measuring.run(n_batches=10, s_per_batch=0.1)
    assert [is_last for _, is_last in measuring.lines] == [False] * 10 + [True]
    assert [done_of(text) for text in measuring.texts] == [100 * i for i in range(11)]


def test_no_rate_without_time():
    """Before anything is done, and with a clock that stands still, the line claims no rate."""
    measuring = Measuring(moves=True)
    measuring.run(n_batches=2, s_per_batch=0)
    assert not any("tokens/s" in text for text in measuring.texts)


def test_clock_of_a_pass_that_broke_off():
    """A pass that ended in an error leaves neither its clock nor its count to the next."""
    measuring = Measuring(moves=True)
    measuring.line.of_kind("text")(0, N_ALL)
    measuring.clock.now_s += 3600
    measuring.line.of_kind("text")(100, N_ALL)
    measuring.run(n_batches=10, s_per_batch=10)
    assert rate_of(measuring.texts[-1]) == 10


def test_rate_at_a_steady_pace():
    """At 100 tokens in 10 s the rate is 10 tokens/s, from the first line on."""
    measuring = Measuring(moves=True)
    measuring.run(n_batches=10, s_per_batch=10)
    named = [text for text in measuring.texts if "tokens/s" in text]
    assert len(named) == 10
    assert [rate_of(text) for text in named] == pytest.approx([10] * len(named), abs=0.5)


def test_time_left_at_a_steady_pace():
    """At a steady pace the time left is what the other batches will take."""
    measuring = Measuring(moves=True)
    measuring.run(n_batches=10, s_per_batch=10)
    found = {
        int(m[1].replace(",", "")): int(m[2])
        for text in measuring.texts
        if (m := re.search(r": ([\d,]+) of .* (\d+) s left", text))
    }
    assert found
    assert found == {n: (N_ALL - n) // 10 for n in found}


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
        if m := re.search(r" (\d+) s left", measuring.texts[-1]):
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
    seconds = [10.0 * first, *(10.0 * jitter * (1 + (end - 1) * i / n) for i, jitter in enumerate(jitters))]
    after = [(says, is_left) for done, says, is_left in told(seconds) if done > 0.1]
    assert len(after) > 0.8 * n
    assert all(abs(says - is_left) <= 0.2 * is_left + 0.5 for says, is_left in after)  # 0.5: whole seconds are told


def test_the_mean_since_the_start_would_be_wrong():
    """What the rule above is for: a first batch of ten times the length is still in the mean when a tenth is done."""
    seconds = [100.0] + [10.0] * 29
    done, says, is_left = next(line for line in told(seconds) if line[0] > 0.1)
    assert says == pytest.approx(is_left, abs=1)
    assert sum(seconds[: round(done * 30)]) / done * (1 - done) > 1.5 * is_left


def test_each_kind_has_its_own_clock():
    """Lambada starts anew: neither the rate nor the count of the text before it."""
    measuring = Measuring(moves=False)
    measuring.run(n_batches=4, s_per_batch=5)
    measuring.clock.now_s += 3600
    measuring.run(n_batches=4, s_per_batch=1, kind="lambada", n_all=400)
    assert measuring.texts[-1].startswith("measuring lambada: 400 of 400 tokens")
    assert rate_of(measuring.texts[-1]) == 100


def test_second_pass_of_the_same_kind_starts_anew():
    """Two passes over one corpus are two counts."""
    measuring = Measuring(moves=False)
    measuring.run(n_batches=2, s_per_batch=1)
    measuring.clock.now_s += 3600
    measuring.run(n_batches=2, s_per_batch=1)
    assert len(measuring.lines) == 2
    assert measuring.texts[0] == measuring.texts[1]


@pytest.mark.parametrize("n_all", [1, 12_345_678])
def test_numbers_have_thousands_separators(n_all):
    """Token counts are readable."""
    measuring = Measuring(moves=False)
    measuring.run(n_batches=1, s_per_batch=1, n_all=n_all)
    assert f"{n_all:,} of {n_all:,} tokens" in measuring.texts[0]


def test_a_run_tells_its_progress(gate):
    """A run that is captured says once per corpus that it is done."""
    run = gate("--sae-batch-tokens=64")
    assert len([line for line in run.lines if line.startswith("measuring text: 1,024 of 1,024 tokens")]) == 1
    assert len([line for line in run.lines if line.startswith("measuring lambada: 528 of 528 tokens")]) == 1


@pytest.mark.parametrize("quiet", ["-q", "-qq"])
def test_quiet_says_nothing(gate, quiet):
    """Under -q there is no progress line."""
    run = gate(quiet, "--sae-batch-tokens=64")
    assert (run.exit_code, "measuring" in run.text) == (0, False)


@pytest.mark.parametrize("arg", ["-s", "--capture=sys", "--color=yes"])
def test_progress_past_every_capture(gate, arg):
    """However output is captured the line is written once and the run is whole."""
    run = gate(arg)
    assert run.exit_code == 0
    assert run.text.count("measuring text: 1,024 of 1,024 tokens") == 1
