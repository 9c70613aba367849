"""What is shown of a verdict, held against its outcome."""

import re


def contradiction(found, *, as_text=False):
    """Why the shown value of *found*, a verdict or a result, contradicts its outcome; None: it does not."""
    shown, limit = found.judged, found.limit
    if shown is None or found.outcome not in ("passed", "failed", "inconclusive"):
        return None
    limit = shown.bound or limit
    value, low, high = shown.value, shown.low, shown.high
    if as_text:
        value, low, high = _numbers(shown.against(limit, found.limit.check))
    words = f"{found.outcome}: {value} [{low}, {high}], {limit}"
    sides = [(side.value, 1 if side.kind == "max" else -1) for side in limit.sides]
    if found.outcome == "passed":
        inside = all(s * (x - b) <= 0 for b, s in sides for x in (value, high if s > 0 else low) if x is not None)
        return None if inside else words
    good_ends = [(b, s, low if s > 0 else high) for b, s in sides]
    is_outside = any(end is not None and s * (end - b) > 0 for b, s, end in good_ends)
    if found.outcome == "failed":
        has_interval = low is not None or high is not None
        return None if is_outside or (not has_interval and not limit.allows(value)) else words
    whys = r"fewer than|the value is too close|the interval contains|undecided|sequence \d+ costs"
    says_why = re.search(rf": ({whys})", found.reason)
    return None if says_why and not (is_outside and "contains" in says_why[1]) else words


def _numbers(text):
    value, _, _ = text.partition(" ")
    interval = re.search(r"\[(\S+), (\S+)\]", text)
    low, high = (
        (None if end in ("inf", "-inf") else float(end) for end in interval.groups()) if interval else (None,) * 2
    )
    return float(value), low, high
