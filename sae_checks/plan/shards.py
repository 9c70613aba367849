"""Shards: which part of a release each of several runs judges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sae_checks import errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One of *n_shards* runs that judge a release together."""

    number: int
    """1 to *n_shards*."""
    n_shards: int

    def __str__(self) -> str:
        return f"{self.number}/{self.n_shards}"

    def members(self, sae_ids: Sequence[str], stack_ids: Sequence[str]) -> tuple[str, ...]:
        """
        Ids of this shard's SAEs and stacks, in their order. Every SAE and stack is in exactly one shard.

        SAEs are dealt like cards, in order of depth, so that every shard gets early layers, which take longer. Stacks
        are dealt from the last shard backwards, since the last shard has the fewest SAEs.
        """
        saes = sae_ids[self.number - 1 :: self.n_shards]
        return (*saes, *stack_ids[self.n_shards - self.number :: self.n_shards])


def parse(text: str) -> Shard:
    """
    Parse `I/N` with 1 <= I <= N, at most 9999.

    Raises:
        UsageError: *text* has another form.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise errors.bad_option("--sae-shard", text, "I/N with 1 <= I <= N", "1/4")
    return Shard(number=int(match[1]), n_shards=int(match[2]))
