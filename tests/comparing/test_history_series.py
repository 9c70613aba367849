"""Which values are of one series, and what is told where a new one starts."""

from dataclasses import replace

import builders
import histories
import pytest

from sae_checks.comparing.history import series
from sae_checks.comparing.history.runs import Run
from sae_checks.provenance import FileHash


def lines(*records, **asked):
    return series.lines([Run(run_id=str(i), record=of) for i, of in enumerate(records)], **asked)


def test_runs_alike_are_one_series():
    """Whatever the SAE's weights, the SAEs' revision and the folder are: those are what is watched."""
    first = histories.run(histories.ce_loss(), day=0)
    again = histories.run(histories.ce_loss(histories.values(0.2), weights=histories.OTHER_SHA), day=1)
    (line,) = lines(again, replace(first, platform="elsewhere"))
    assert (line.sae_id, line.check, line.measure, line.unit) == ("a", "ce_loss", "ce_increase", "nats/token")
    (only,) = line.series
    assert [round(point.value, 1) for point in only.points] == [0.1, 0.2]  # by time, not as they came


CHANGES = {
    "text": ({"corpus": {"source": "other.jsonl"}}, "text: text.jsonl -> other.jsonl"),
    "rows of a whole file": ({"corpus": {"n_listed": 99}}, "text: text.jsonl -> sha256 000000000000"),
    "sequences": ({"corpus": {"n_sequences": 256}}, "sequences: 64 -> 256"),
    "context": ({"corpus": {"n_context_tokens": 16}}, "tokens per sequence: 32 -> 16"),
    "BOS": ({"corpus": {"prepend_bos": False}}, "BOS before every sequence: True -> False"),
    "model": ({"model": {"weights": (FileHash(name="m", sha256=histories.OTHER_SHA),)}}, "language model"),
    "device": ({"model": {"device": "cuda:0"}}, "device: cpu -> cuda"),
    "dtype": ({"model": {"dtype": "bfloat16"}}, "dtype: float32 -> bfloat16"),
    "backend": ({"model": {"backend": "transformer_lens", "processing": ("fold_ln",)}}, "backend: transformers ->"),
    "hook": ({"sae": {"hook": "g"}}, "hook: h -> g h"),
    "training context": ({"sae": {"n_training_context_tokens": 8}}, "training context: 16 -> 8"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_what_was_measured_in_another_way_is_another_series(change, words):
    """Every part of the key, told in words."""
    changed = replace(histories.ce_loss(), provenance=histories.facts(**change))
    (line,) = lines(histories.run(day=0), histories.run(changed, day=1), histories.run(day=2))
    before, after = line.series
    assert (len(before.points), len(after.points)) == (2, 1)  # the third run is of the first series again
    (told,) = before.key.changes(after.key)
    assert words in told
    assert before.key != after.key


SEEDS = {
    "a file": {"n_listed": 99, "source": "elsewhere.jsonl"},
    "part of a dataset": {"sha256": histories.OTHER_SHA},
    "passages": {"kind": "lambada", "n_context_tokens": 16},
}


@pytest.mark.parametrize("draw", SEEDS.values(), ids=SEEDS)
def test_runs_that_differ_in_the_seed_are_one_series(draw):
    """Another draw has other tokens and another number of them; of a dataset other rows are read."""
    same = {name: draw[name] for name in ("kind", "n_listed") if name in draw}
    other = {"fingerprint": histories.OTHER_SHA, "n_scored_tokens": 990, "n_truncated": 3, **draw}
    runs = [replace(histories.ce_loss(), provenance=histories.facts(corpus=corpus)) for corpus in (same, other)]
    (line,) = lines(*(histories.run(result, day=day) for day, result in enumerate(runs)))
    assert [len(series.points) for series in line.series] == [2]


def test_a_point_is_the_value_of_the_verdict():
    """Of the judged measure, with its interval and n; of others the estimate."""
    result = histories.ce_loss()
    (line,) = lines(histories.run(result))
    (point,) = line.series[0].points
    judged = result.judged
    assert (point.value, point.low, point.high, point.n) == (judged.value, judged.low, judged.high, judged.n)


def test_another_version_or_rule_is_another_series():
    """Of the measures, and for special tokens."""
    newer = histories.ce_loss()
    newer = replace(newer, paired_sample=replace(newer.paired_sample, measures_version=2))
    (line,) = lines(histories.run(day=0), histories.run(newer, day=1), histories.run(day=2, special_tokens="replace"))
    first, second, third = line.series
    assert first.key.changes(second.key) == ("version of the measures: 1 -> 2",)
    assert first.key.changes(third.key) == ("rule for special tokens: keep -> replace",)


def test_without_samples_the_version_is_that_of_the_software():
    """A measure of which the record does not tell the version cannot change its meaning unseen."""
    first = histories.run(histories.counted())
    newer = replace(first, software=(replace(first.software[0], version="2.0"), *first.software[1:]))
    (line,) = lines(first, replace(newer, started=histories.run(day=1).started))
    assert line.series[0].key.changes(line.series[1].key) == (
        "version of the measures: of sae-checks 1.0 -> of sae-checks 2.0",
    )


def test_checks_of_the_whole_release_need_the_same_release():
    """Copies among other SAEs are another number; a loss is the same."""
    both = (histories.ce_loss(), histories.counted())
    found = lines(histories.run(*both), histories.run(*both, day=1, sae_ids=("a", "b", "c")))
    assert {line.check: len(line.series) for line in found} == {"ce_loss": 1, "distinct": 2}


def test_the_usable_context_is_within_a_limit():
    """Another limit of ce_loss is another usable context."""
    estimate = builders.estimate("usable_context", 1.5)
    usable = replace(
        histories.ce_loss(),
        check="usable_context",
        limit=builders.limit("usable_context", "usable_context", "min", 1.0),
        estimates=(estimate,),
        paired_sample=None,
    )
    stricter = replace(histories.ce_loss(), limit=builders.limit(value=0.1))
    found = lines(histories.run(histories.ce_loss(), usable), histories.run(stricter, usable, day=1))
    assert {line.check: len(line.series) for line in found} == {"ce_loss": 1, "usable_context": 2}


def test_which_measures():
    """The limited ones; those that are named; all; and only the SAEs that match."""
    run = histories.run(histories.ce_loss(), histories.ce_loss(sae_id="b"))
    assert [(line.sae_id, line.measure) for line in lines(run)] == [("a", "ce_increase"), ("b", "ce_increase")]
    assert [line.measure for line in lines(run, measures=["kl"], sae_ids=["a*"])] == ["kl"]
    assert {line.measure for line in lines(run, every=True)} == {"kl", "ce_increase"}
    assert lines(run, sae_ids=["none"]) == ()
    assert set(series.measures_in([Run(run_id="0", record=run)])) == {"kl", "ce_increase"}


def test_a_comparison_is_in_no_series():
    """It is of two runs."""
    compared = replace(histories.ce_loss(), check="no_regression", sae_id="a-ce_loss", paired_sample=None)
    assert lines(histories.run(compared)) == ()
