"""Types of the fields that a record keeps, with the values that they may have."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A number of things, or an index that starts at 0."""
Share = Annotated[float, Meta(ge=0, le=1)]
"""A probability."""
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""64 hexadecimal digits."""
