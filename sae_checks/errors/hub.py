"""The Hugging Face Hub: what it does not have, does not give, or gives damaged."""

from __future__ import annotations

from sae_checks.errors.exceptions import HubBusyError, HubError
from sae_checks.errors.wording import message, shown


def hub_no_repo(repo_id: str) -> HubError:
    return HubError(
        message(
            f"the Hub has no repository {shown(repo_id)}, or your token may not read it",
            expected="a public repository, or one that your token (HF_TOKEN) can read",
            got="repository not found",
            attempt="hf auth login, if the name is right",
        )
    )


def hub_gated(repo_id: str) -> HubError:
    return HubError(
        message(
            f"the repository {shown(repo_id)} is gated",
            expected="a token (HF_TOKEN) of an account that has access",
            got="access denied",
            attempt="hf auth login, once you accepted the terms on the repository's page",
        )
    )


def hub_denied(repo_id: str, status: str) -> HubError:
    return HubError(
        message(
            f"the Hub denies access to {shown(repo_id)}",
            expected="a token (HF_TOKEN, or that of hf auth login) that is valid and may read the repository",
            got=shown(status),
            attempt="hf auth login (of a gated repository, accept the terms first), or unset HF_TOKEN",
        )
    )


def hub_no_revision(repo_id: str, revision: str) -> HubError:
    return HubError(
        message(
            f"the repository {shown(repo_id)} has no revision {shown(revision)!r}",
            expected="a branch, a tag or a commit of that repository",
            got=shown(revision),
            attempt=f"{shown(repo_id)}@main in place of it",
        )
    )


def hub_no_file(source: str, path: str) -> HubError:
    return HubError(
        message(
            f"{shown(source)} has no file {shown(path)}",
            expected="that file in that commit",
            got="file not found",
            attempt="--sae-release=NAME@REVISION with another revision, or --sae-model=NAME@REVISION",
        )
    )


def hub_unsafe_path(source: str, path: str) -> HubError:
    return HubError(
        message(
            f"{shown(source)} lists a file that would lie outside of it: {shown(path)}",
            expected="paths inside the repository; do not trust this one",
            got=shown(path),
        )
    )


def hub_too_large(source: str, path: str, n_bytes: int, n_most: int) -> HubError:
    return HubError(
        message(
            f"{shown(path)} of {shown(source)} is too large and is not fetched",
            expected=f"at most {n_most} bytes: no configuration is so large",
            got=f"{n_bytes} bytes",
        )
    )


def hub_busy(repo_id: str, problem: str, *, wait_s: float = 0.0) -> HubBusyError:
    raised = HubBusyError(
        message(
            f"the Hub does not answer for {shown(repo_id)}, and no older copy is used in its place",
            expected="an answer from the Hub (HF_ENDPOINT)",
            got=shown(problem, n_most=300),
            attempt="HF_HUB_OFFLINE=1 pytest ... to use exactly the commit that is cached, or again later",
        )
    )
    raised.wait_s = wait_s
    return raised


def hub_too_slow(source: str, path: str, limit_s: float) -> HubBusyError:
    return HubBusyError(
        message(
            f"{shown(path)} of {shown(source)} did not arrive in time",
            expected=f"the whole file within {limit_s:.0f} s",
            got="a part of it",
        )
    )


def hub_wrong_hash(source: str, path: str, expected: str, got: str) -> HubError:
    return HubError(
        message(
            f"{shown(path)} of {shown(source)} does not have the hash that the Hub lists; it is removed from the cache",
            expected=f"hash {expected}; if it happens again, something between you and the Hub changes files",
            got=f"hash {got}",
        )
    )


def hub_not_cached(repo_id: str, revision: str) -> HubError:
    return HubError(
        message(
            f"offline, and {shown(repo_id)} at {shown(revision)!r} is not in the cache",
            expected="that commit in the cache (HF_HOME), from a run that reached the Hub",
            got="no such commit in the cache",
            attempt="unset HF_HUB_OFFLINE",
        )
    )
