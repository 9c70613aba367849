"""How long the Hub is waited for, and what its answers mean in this package's words."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sae_checks import errors

BETWEEN_TRIES_S = (1.0, 2.0)
ANSWER_WITHIN_S = 10.0
ASK_WITHIN_S = 40.0
"""All tries together: where the Hub asks to wait longer (Retry-After), that is the error."""

T = TypeVar("T")


def in_time(call: Callable[[], T], limit_s: float) -> T:
    """
    *call*, in a thread that is left to itself after *limit_s*.

    Raises:
        TimeoutError: it takes longer.
    """
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as problem:  # noqa: BLE001 -- carried to the caller's thread as it is
            outcome.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise TimeoutError(f"it took longer than {limit_s:.0f} s")
    (found,) = outcome
    if isinstance(found, BaseException):
        raise found
    return found


def patiently(ask: Callable[[], T], repo_id: str, revision: str, path: str = "") -> T:
    """*ask*, again after a pause where the Hub says that it is busy or does not answer."""
    ends_s = time.monotonic() + ASK_WITHIN_S
    for pause_s in (*BETWEEN_TRIES_S, None):
        left_s = max(0.0, ends_s - time.monotonic())
        try:  # in_time: an answer that trickles in keeps within every time-out of its connection
            return translated(lambda: in_time(ask, left_s), repo_id, revision, path)  # noqa: B023 -- called at once
        except errors.HubBusyError as problem:
            if pause_s is None or time.monotonic() + max(pause_s, problem.wait_s) > ends_s:
                raise
            time.sleep(max(pause_s, problem.wait_s))
    raise AssertionError  # the last pause is None


def translated(call: Callable[[], T], repo_id: str, revision: str, path: str) -> T:
    """*call*, its exceptions told in this package's words."""
    import httpx2
    from huggingface_hub import errors as hub

    try:
        return call()
    except hub.GatedRepoError:
        raise errors.hub_gated(repo_id) from None
    except hub.RepositoryNotFoundError:
        raise errors.hub_no_repo(repo_id) from None
    except hub.RevisionNotFoundError:
        raise errors.hub_no_revision(repo_id, revision) from None
    except hub.RemoteEntryNotFoundError:
        raise errors.hub_no_file(f"{repo_id}@{revision}", path) from None
    except hub.HfHubHTTPError as problem:
        raise _busy(repo_id, problem) from None
    except (hub.LocalEntryNotFoundError, httpx2.HTTPError, OSError) as problem:
        # a refused connection, a time-out, a body cut short; LocalEntryNotFoundError hides which of them
        cause = problem.__cause__ if isinstance(problem, hub.LocalEntryNotFoundError) else None
        if isinstance(cause, hub.HfHubHTTPError):
            raise _busy(repo_id, cause) from None
        raise errors.hub_busy(repo_id, f"{type(cause or problem).__name__}: {cause or problem}") from None


def _busy(repo_id: str, problem: Any) -> errors.HubBusyError:  # an HfHubHTTPError: its module is not imported here
    """What the Hub's status says, and how long it asks to wait."""
    response = problem.response
    asked = re.fullmatch(r"(\d{1,9})", response.headers.get("Retry-After", ""), re.ASCII)
    asked = asked or re.search(r";r=0;t=(\d{1,9})", response.headers.get("RateLimit", ""), re.ASCII)
    said, wait_s = f"HTTP {response.status_code} {response.reason_phrase}", int(asked[1]) if asked else 0
    return errors.hub_busy(repo_id, f"{said}, wait {wait_s} s" if wait_s else said, wait_s=wait_s)
