"""What was asked for that cannot be done: options, models and texts that are missing."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import UsageError
from sae_checks.errors.wording import listed, said, shown


def bad_option(flag: str, got: str, expected: str) -> UsageError:
    return UsageError(
        said(f"{flag} cannot be {shown(got)!r}", expected=expected, got=shown(got), attempt=f"{flag} with such a value")
    )


def release_not_given(flags: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            "there is no release to judge",
            expected="--sae-release NAME-OR-FOLDER",
            got=listed(flags),
            attempt="pytest --sae-release demo",
        )
    )


def option_needed(flag: str, release: str, what: str) -> UsageError:
    return UsageError(
        said(
            f"release {shown(release)} needs {flag}",
            expected=f"{what} (only the embedded releases bring their own)",
            got="no such option",
            attempt=f"pytest --sae-release {shown(release)} {flag} PATH",
        )
    )


def device_unavailable(device: str) -> UsageError:
    return UsageError(
        said(
            f"--sae-device {device}: this machine's torch finds no such device",
            expected="a device that torch can use here",
            got=device,
            attempt="--sae-device auto, or a torch build for that device",
        )
    )


def context_too_long(asked: int, available: int) -> UsageError:
    return UsageError(
        said(
            f"--sae-context {asked} is longer than the model's context",
            expected=f"at most {available} tokens (the model's config.json)",
            got=str(asked),
            attempt=f"--sae-context {available}",
        )
    )


def too_many_shards(shard: str, n_saes: int) -> UsageError:
    return UsageError(
        said(
            f"--sae-shard {shown(shard)}: there are not so many SAEs",
            expected=f"at most {n_saes} shards: every one has an SAE",
            got=shown(shard),
            attempt=f"--sae-shard 1/{n_saes}, or fewer; sae-checks plan --shards N finds how many there can be",
        )
    )
