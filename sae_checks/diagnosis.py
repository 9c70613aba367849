"""What is wrong with an SAE whose checks are red, as measured by changing its reconstruction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The most likely cause of an SAE's loss, and the measurements behind it."""

    sentence: str
    """the conclusion, shown in terminal, JUnit, summary and page."""
