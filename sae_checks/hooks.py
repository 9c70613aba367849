"""Hook names, as TransformerLens gives them. The one place that reads them."""

from __future__ import annotations

import re

_RESIDUAL = re.compile(r"blocks\.(\d{1,4})\.hook_resid_(pre|post)")


def boundary(hook: str) -> int | None:
    """
    Which point of the residual stream *hook* names: 0 before the first block, n_layers after the last.

    `blocks.2.hook_resid_post` and `blocks.3.hook_resid_pre` are one point. None: not a residual hook this reads.
    """
    match = _RESIDUAL.fullmatch(hook)
    return None if match is None else int(match[1]) + (match[2] == "post")
