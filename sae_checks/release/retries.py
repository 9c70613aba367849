"""Time-outs and retries of requests to the Hub, and translation of its errors into this package's errors."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sae_checks import errors

PAUSES_S = (1.0, 2.0)
"""pauses between tries."""
ANSWER_TIMEOUT_S = 10.0
RETRY_BUDGET_S = 40.0
"""for all tries together; if the Hub asks for a longer wait (Retry-After), the request fails."""

T = TypeVar("T")


def within(call: Callable[[], T], limit_s: float) -> T:
    """
    Run *call* in a thread of its own, and abandon the thread after *limit_s* seconds.

    Raises:
        TimeoutError: *call* takes longer.
    """
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as problem:  # noqa: BLE001 -- raised again in the caller's thread
            outcome.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise TimeoutError(f"it took longer than {limit_s:.0f} s")
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def cancelling_bar(is_cancelled: threading.Event) -> type[Any]:
    """A class of progress bars that raise once *is_cancelled* is set: huggingface_hub has no other way to cancel."""
    from huggingface_hub.utils.tqdm import tqdm

    class CancellingBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._stop()
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # tqdm has no types

        def update(self, n: float | None = 1) -> Any:
            self._stop()
            return super().update(n)

        def _stop(self) -> None:
            if is_cancelled.is_set():
                raise InterruptedError

    return CancellingBar


def with_retries(request: Callable[[], T], repo_id: str, revision: str, path: str = "") -> T:
    """Make *request*, and repeat it after a pause while the Hub is busy or does not answer; raises HubError."""
    ends_s = time.monotonic() + RETRY_BUDGET_S
    for pause_s in (*PAUSES_S, None):
        left_s = max(0.0, ends_s - time.monotonic())
        try:  # within: a slow answer that keeps sending bytes never meets the connection's own time-out
            return with_our_errors(lambda: within(request, left_s), repo_id, revision, path)  # noqa: B023 -- called at once
        except errors.HubBusyError as problem:
            if pause_s is None or time.monotonic() + max(pause_s, problem.wait_s) > ends_s:
                raise
            time.sleep(max(pause_s, problem.wait_s))
    raise AssertionError  # the last pause is None


def with_our_errors(call: Callable[[], T], repo_id: str, revision: str, path: str) -> T:
    """Run *call*, and raise its errors as HubError."""
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
        raise _refusal(repo_id, problem) from None
    except (hub.LocalEntryNotFoundError, httpx2.HTTPError, OSError) as problem:
        # a refused connection, a time-out or a truncated body; LocalEntryNotFoundError hides which of these it is
        cause = problem.__cause__ if isinstance(problem, hub.LocalEntryNotFoundError) else None
        if isinstance(cause, hub.HfHubHTTPError):
            raise _refusal(repo_id, cause) from None
        raise errors.hub_busy(repo_id, f"{type(cause or problem).__name__}: {cause or problem}") from None


def _refusal(repo_id: str, problem: Any) -> errors.HubError:  # an HfHubHTTPError: its module is not imported here
    """The error for an HTTP status: one that asking again does not change, or a busy Hub and the wait it asks for."""
    response = problem.response
    status = f"HTTP {response.status_code} {response.reason_phrase}"
    if response.status_code in (401, 403):
        return errors.hub_denied(repo_id, status)
    if response.status_code == 404:
        return errors.hub_no_repo(repo_id)
    wait = re.fullmatch(r"(\d{1,9})", response.headers.get("Retry-After", ""), re.ASCII)
    wait = wait or re.search(r";r=0;t=(\d{1,9})", response.headers.get("RateLimit", ""), re.ASCII)
    wait_s = int(wait[1]) if wait else 0
    return errors.hub_busy(repo_id, f"{status}, wait {wait_s} s" if wait_s else status, wait_s=wait_s)
