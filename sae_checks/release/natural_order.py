"""The order in which ids are listed: the digits in them count by value, so that `l0_25` comes before `l0_100`."""

from __future__ import annotations

import re

NaturalKey = tuple[tuple[str | tuple[int, str], ...], str]


def natural_key(text: str) -> NaturalKey:
    """
    The sort key of *text*: its parts, alternately text and (number of digits, digits), then *text* itself.

    Equal keys are equal texts. WHY digits stay text: Python refuses to convert thousands of digits to a number.
    """
    parts = re.split(r"([0-9]+)", text)
    return tuple(_by_value(part) if i % 2 else part for i, part in enumerate(parts)), text


def _by_value(digits: str) -> tuple[int, str]:
    significant = digits.lstrip("0")
    return len(significant), significant
