"""How long the Hub is waited for."""

import threading
import time

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from sae_checks import errors
from sae_checks.corpora import datasets as corpora
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.release import retries
from sae_checks.release.hub import HubRepo


def test_in_time_is_the_call_itself():
    """What comes back or is raised within the time is the call's own."""
    assert retries.within(lambda: 7, 60) == 7
    with pytest.raises(ZeroDivisionError):
        retries.within(lambda: 1 // 0, 60)


def test_what_takes_too_long_is_left_to_itself():
    """A call that does not come back is no hang, but an error."""
    released = threading.Event()
    with pytest.raises(TimeoutError, match="longer than 0 s"):
        retries.within(lambda: released.wait(60), 0.01)
    released.set()


def test_a_dataset_that_does_not_come_is_an_error(monkeypatch):
    """datasets may retry as long as it likes: its reader gives up and says so."""
    import datasets

    released = threading.Event()
    monkeypatch.setattr(corpora, "_READ_TIMEOUT_S", 0.01)
    monkeypatch.setattr(datasets, "load_dataset", lambda **_: released.wait(60))
    repo = HubRepo(repo_id="org/text", kind="dataset", commit="0" * 40, files=(), offline=False)
    with pytest.raises(errors.MeasuringError, match=r"--sae-corpus: the dataset org/text.*\n.*\n.*TimeoutError"):
        corpora.read_rows(CorpusSource(dataset=repo, split="train"), str, max_rows=1, seed=0, flag="--sae-corpus")
    released.set()


def answered(status, **headers):
    response = httpx2.Response(status, headers=headers, request=httpx2.Request("GET", "http://hub/"))
    return HfHubHTTPError("", response=response)


@pytest.mark.parametrize(
    ("problem", "waits"),
    [
        (answered(429, **{"Retry-After": "7"}), [7, 7]),
        (answered(429, RateLimit='"api";r=0;t=5'), [5, 5]),
        (answered(429, RateLimit='"api";r=3;t=5'), [1, 2]),
        (answered(503), [1, 2]),
        (answered(503, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), [1, 2]),
        (answered(429, **{"Retry-After": "30"}), [30]),
        (answered(429, **{"Retry-After": "3600"}), []),
        (ConnectionRefusedError(111, "refused"), [1, 2]),
    ],
)
def test_the_hub_is_given_the_time_that_it_asks_for(monkeypatch, problem, waits):
    """Three tries; as long between them as the Hub asks for, but never more than 40 s in all."""
    now, waited = [0.0], []

    def sleep(seconds):
        waited.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def ask():
        raise problem

    with pytest.raises(errors.HubBusyError):
        retries.with_retries(ask, "org/name", "main")
    assert waited == waits


def test_a_hub_that_recovers_is_asked_again():
    """An answer after a fault is the answer."""
    answers = [answered(503, **{"Retry-After": "0"}), None]

    def ask():
        problem = answers.pop(0)
        if problem:
            raise problem
        return "here"

    assert retries.with_retries(ask, "org/name", "main") == "here"
