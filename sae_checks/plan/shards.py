"""Which part of a release one of several runs judges. Ground."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sae_checks import errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One of so many runs that together judge a release."""

    number: int
    """from 1 on."""
    n_shards: int

    def __str__(self) -> str:
        return f"{self.number}/{self.n_shards}"

    def members(self, sae_ids: Sequence[str], stack_ids: Sequence[str]) -> tuple[str, ...]:
        """
        The SAEs and stacks of this shard, in their order; each is in exactly one of the shards.

        SAEs are dealt like cards in the order of the release, which is by depth and then by name: neighbours go to
        different shards, since early layers take longer. Stacks are dealt from the last shard backwards, which has the
        fewest SAEs.
        """
        saes = sae_ids[self.number - 1 :: self.n_shards]
        return (*saes, *stack_ids[self.n_shards - self.number :: self.n_shards])


def parse(text: str) -> Shard:
    """
    *text*, `I/N` with 1 <= I <= N.

    Raises:
        UsageError: it is not.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text)
    if found is None or int(found[1]) > int(found[2]):
        raise errors.bad_option("--sae-shard", text, "I/N with 1 <= I <= N, as 1/4")
    return Shard(number=int(found[1]), n_shards=int(found[2]))
