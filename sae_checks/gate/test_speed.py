"""
Times a spliced forward pass. It is a report and no check: time is never judged.

Collected with --sae-out or an option of pytest-benchmark (`--benchmark-json`, `--benchmark-only`, ...), or by its path.
"""

from collections.abc import Callable


def test_speed(sae_speed: Callable[[], None]) -> None:
    """Time encoding, decoding and resuming the model, on a fixed batch."""
    sae_speed()
