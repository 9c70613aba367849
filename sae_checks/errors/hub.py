"""The Hugging Face Hub: what it does not have, does not give, or gives damaged."""

from __future__ import annotations

from sae_checks.errors.exceptions import HubBusyError, HubError, HubNameError
from sae_checks.errors.wording import said, shown


def hub_no_repo(repo_id: str) -> HubNameError:
    return HubNameError(
        said(
            f"the Hub has no repository {shown(repo_id)}, or not for you",
            expected="a public repository, or one that your token (HF_TOKEN, hf auth login) can read",
            got="repository not found",
            attempt="look at its name and your login",
        )
    )


def hub_gated(repo_id: str) -> HubError:
    return HubError(
        said(
            f"the repository {shown(repo_id)} is gated",
            expected="access granted to the account of your token (HF_TOKEN, hf auth login)",
            got="access denied",
            attempt="accept its terms on its page, then log in",
        )
    )


def hub_no_revision(repo_id: str, revision: str) -> HubNameError:
    return HubNameError(
        said(
            f"the repository {shown(repo_id)} has no revision {shown(revision)!r}",
            expected="a branch, a tag or a commit",
            got=shown(revision),
            attempt="--sae-revision with one that exists, or none for main",
        )
    )


def hub_no_file(source: str, path: str) -> HubError:
    return HubError(
        said(
            f"{shown(source)} has no file {shown(path)}",
            expected="that file in that commit",
            got="file not found",
            attempt="another revision, or tell the release's authors",
        )
    )


def hub_unsafe_path(source: str, path: str) -> HubError:
    return HubError(
        said(
            f"{shown(source)} names a file that would lie outside of it: {shown(path)}",
            expected="paths inside the repository",
            got=shown(path),
            attempt="another release: this one means harm",
        )
    )


def hub_too_large(source: str, path: str, n_bytes: int, n_most: int) -> HubError:
    return HubError(
        said(
            f"{shown(path)} of {shown(source)} has {n_bytes} bytes and is not fetched",
            expected=f"at most {n_most} bytes",
            got=str(n_bytes),
            attempt="look at that file on the Hub",
        )
    )


def hub_busy(repo_id: str, problem: str, *, wait_s: float = 0.0) -> HubBusyError:
    raised = HubBusyError(
        said(
            f"the Hub does not answer for {shown(repo_id)}; nothing old is used in its place",
            expected="an answer from the Hub (HF_ENDPOINT)",
            got=shown(problem, n_most=300),
            attempt="again later, or --sae-offline to use exactly the commit that is cached",
        )
    )
    raised.wait_s = wait_s
    return raised


def hub_too_slow(source: str, path: str, limit_s: float) -> HubBusyError:
    return HubBusyError(
        said(
            f"{shown(path)} of {shown(source)} did not arrive",
            expected=f"within {limit_s:.0f} s",
            got="less than that",
            attempt="again later",
        )
    )


def hub_wrong_hash(source: str, path: str, expected: str, got: str) -> HubError:
    return HubError(
        said(
            f"{shown(path)} of {shown(source)} is not what the Hub says it is; it was removed from the cache",
            expected=f"hash {expected}",
            got=f"hash {got}",
            attempt="again; if it stays so, something between you and the Hub changes files",
        )
    )


def hub_not_cached(repo_id: str, revision: str) -> HubError:
    return HubError(
        said(
            f"offline, and {shown(repo_id)} at {shown(revision)!r} is not in the cache",
            expected="a run with the Hub in reach before, into this cache (HF_HOME)",
            got="no such commit in the cache",
            attempt="once without --sae-offline and HF_HUB_OFFLINE",
        )
    )
