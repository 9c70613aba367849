"""
How long a spliced forward pass takes. A report, not a check: time is never judged.

Collected when pytest-benchmark is asked for something (`--benchmark-json`, `--benchmark-only`, ...), or by its path.
"""

from collections.abc import Callable


def test_speed(sae_speed: Callable[[], None]) -> None:
    """Encode, decode and resume the model on a fixed batch."""
    sae_speed()
