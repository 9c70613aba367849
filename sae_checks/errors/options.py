"""Options: values that cannot be used, and options that are missing."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import UsageError
from sae_checks.errors.wording import listed, message, shown, typed


def bad_option(flag: str, got: str, expected: str, example: str) -> UsageError:
    """*example* is a value that *flag* takes; empty for a switch."""
    where = "   (pytest --help)" if flag.startswith("--sae-") else ""
    return UsageError(
        message(
            f"{flag} cannot be {shown(got)!r}",
            expected=f"{expected}{where}",
            got=shown(got),
            attempt=typed(flag, example) if example else flag,
        )
    )


def release_not_given(arguments: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            "no release is given",
            expected="--sae-release=NAME: a registered name, a Hub repository or a folder   (pytest --help)",
            got=listed(arguments),
            attempt="pytest --sae-release=demo",
        )
    )


def option_needed(flag: str, release: str, what: str) -> UsageError:
    return UsageError(
        message(
            f"release {shown(release)} needs {flag}",
            expected=f"{flag}: {what}; only demo and demo-broken bring their own",
            got=f"no {flag}",
            attempt=f"pytest {typed('--sae-release', release)} {flag}=PATH",
        )
    )


def option_removed(flag: str, instead: str) -> UsageError:
    return UsageError(
        message(
            f"{flag} is gone",
            expected=f"{instead}=DIR, which writes all files of a run",
            got=flag,
            attempt=f"{instead}=gate-report",
        )
    )


def unknown_option(name: str, where: str, nearest: str) -> UsageError:
    """*nearest*: the option whose name is most like *name*; empty: none is."""
    return UsageError(
        message(
            f"{shown(name)} is no option",
            expected="an option that pytest --help lists",
            got=f"{shown(name)} in {where}",
            attempt=shown(nearest) or "pytest --help",
        )
    )


def out_not_writable(folder: str, problem: str) -> UsageError:
    return UsageError(
        message(
            f"--sae-out={shown(folder)} cannot be written",
            expected="a folder for record.json, junit.xml, benchmark.json and the folder report; it is created",
            got=shown(problem, n_most=300),
            attempt="--sae-out=gate-report",
        )
    )


def device_unavailable(device: str) -> UsageError:
    return UsageError(
        message(
            f"--sae-device={device}: torch finds no such device",
            expected="a device that torch can use on this machine",
            got=device,
            attempt="--sae-device=auto",
        )
    )


def context_too_long(asked: int, available: int) -> UsageError:
    return UsageError(
        message(
            f"--sae-context={asked} is longer than the model's context",
            expected=f"at most {available} tokens   (the model's config.json)",
            got=str(asked),
            attempt=f"--sae-context={available}",
        )
    )


def train_context_differs(asked: int, configured: int, sae_ids: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"--sae-train-context={asked}: a configuration says another training context",
            expected="SAEs whose configuration does not say it",
            got=f"{configured} tokens in the configuration of {listed(sae_ids)}",
            attempt="--sae-id=GLOB for the other SAEs, or no --sae-train-context",
        )
    )


def too_many_shards(shard: str, n_saes: int) -> UsageError:
    return UsageError(
        message(
            f"--sae-shard={shown(shard)}: the release has only {n_saes} SAEs that can be judged",
            expected=f"at most {n_saes} shards, so that each has an SAE",
            got=shown(shard),
            attempt=f"--sae-shard=1/{n_saes}",
        )
    )
