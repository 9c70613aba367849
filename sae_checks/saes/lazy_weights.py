"""
SAEs whose weights are loaded when they are needed, and dropped when memory is needed for others.

A release may be larger than memory, so weights are kept in a cache that drops the least recently used ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import torch

from sae_checks import errors
from sae_checks.provenance import SaeFacts
from sae_checks.release.converters import quiet
from sae_checks.release.release import Sae
from sae_checks.saes import copies, sae
from sae_checks.saes.sae import LoadedSae, Reconstruction

_N_BYTES_PER_WEIGHT = 4  # float32
_FileStats = dict[str, tuple[int, int]]
"""size (bytes) and modification time (ns) by name of the file."""


class WeightCache:
    """A least-recently-used cache of SAE weights. One thread may call its methods; a second one loads."""

    def __init__(self, n_bytes: Callable[[], int]) -> None:
        self._measure_n_bytes = n_bytes
        self._entries: OrderedDict[LazySae, Future[LoadedSae]] = OrderedDict()  # least recently used first
        self._loader = ThreadPoolExecutor(1, "sae-checks loads")

    @cached_property
    def n_bytes(self) -> int:
        """Capacity in bytes, fixed at the first use: the model should be loaded by then."""
        return self._measure_n_bytes()

    def groups_that_fit(self, saes: Sequence[LazySae]) -> list[list[LazySae]]:
        """Split *saes*, in their order, into as few groups as fit into the cache; a group of one SAE may not fit."""
        groups: list[list[LazySae]] = []
        for lazy in saes:
            if groups and _n_bytes(groups[-1]) + lazy.n_bytes <= self.n_bytes:
                groups[-1].append(lazy)
            else:
                groups.append([lazy])
        return groups

    def start_loading(self, saes: Sequence[LazySae]) -> None:
        """Start to load *saes*, a group that fits, in the background; call `finish_loading` after measuring them."""
        with quiet():
            import sae_lens  # noqa: F401 -- here: its circular imports fail if two threads import it

        for lazy in saes:
            if not lazy.is_broken:
                self._start(lazy, keep=saes)

    def finish_loading(self) -> None:
        """Cancel loads that have not begun, and wait for those that have."""
        for lazy in [lazy for lazy, future in self._entries.items() if future.cancel()]:
            del self._entries[lazy]
        for future in self._entries.values():
            future.exception()

    def get(self, lazy: LazySae) -> LoadedSae:
        """
        The loaded *lazy*; loads it if need be.

        Raises:
            SaeError: it cannot be loaded.
        """
        self._start(lazy, keep=())
        self._entries.move_to_end(lazy)
        try:
            return self._entries[lazy].result()
        except errors.SaeError:
            del self._entries[lazy]
            raise

    def _start(self, lazy: LazySae, *, keep: Sequence[LazySae]) -> None:
        """Start to load *lazy*, and drop the least recently used others until it fits, except those in *keep*."""
        if lazy in self._entries:
            return
        for other in [each for each in self._entries if each not in keep]:
            if _n_bytes(self._entries) + lazy.n_bytes > self.n_bytes:
                self._entries.pop(other).exception()  # WHY exception(): an unfinished load takes memory until it ends
        self._entries[lazy] = self._loader.submit(lazy.load)


def _n_bytes(saes: Iterable[LazySae]) -> int:
    return sum(lazy.n_bytes for lazy in saes)


class LazySae:
    """An SAE whose weights are in a cache while they are needed. Implements `sae.Reconstructs`."""

    def __init__(
        self, described: Sae, cache: WeightCache, *, device: torch.device, center: bool, head_slice: slice
    ) -> None:
        self.sae_id = described.sae_id
        self.hook = described.hook
        self.hook_out = described.hook_out
        self.head_slice = head_slice
        self.n_training_context_tokens = described.n_training_context_tokens
        self.center = center
        self.n_bytes = (described.d_in + described.d_out) * described.d_sae * _N_BYTES_PER_WEIGHT
        """bytes of encoder and decoder; the other weights are small, except in temporal SAEs."""
        self._described = described
        self._device = device
        self._cache = cache
        self._problem: errors.SaeError | None = None
        self._file_stats: _FileStats | None = None  # None: never loaded

    @property
    def is_broken(self) -> bool:
        """Whether loading it has failed; it is not tried again."""
        return self._problem is not None

    def loaded(self) -> LoadedSae:
        """
        The SAE with its weights.

        Raises:
            SaeError: the weights cannot be loaded; the same error each time.
        """
        if self._problem is not None:
            raise self._problem
        try:
            with quiet():
                return self._cache.get(self)
        except errors.SaeError as problem:
            self._problem = problem
            raise

    def can_be_loaded(self) -> bool:
        """Whether its weights can be loaded; loads them if that was never tried."""
        if self._file_stats is None and self._problem is None:
            try:
                self.loaded()
            except errors.SaeError:
                return False
        return self._problem is None

    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        """As `LoadedSae.reconstruct`; raises SaeError if the weights cannot be loaded."""
        return self.loaded().reconstruct(x)

    @cached_property
    def fingerprint(self) -> str:
        """As `LoadedSae.fingerprint`; raises SaeError if the weights cannot be loaded."""
        return self.loaded().fingerprint

    @cached_property
    def _sketch(self) -> copies.Sketch:
        return copies.sketch(self.loaded())

    def is_copy_of(self, other: LazySae) -> bool:
        """
        Whether *other* has the same weights, but for rounding and the order of latents.

        Raises:
            SaeError: the weights of one of them cannot be loaded.
        """
        # WHY first: neither must be loaded again for them
        if self.fingerprint == other.fingerprint:
            return True
        return self._sketch.resembles(other._sketch) and copies.are_copies(self.loaded(), other.loaded())

    @cached_property
    def facts(self) -> SaeFacts:
        """Provenance of the SAE; raises SaeError if the weights cannot be loaded."""
        return sae.facts(self._described, self.loaded())

    def load(self) -> LoadedSae:
        """
        Load the weights. Called by the cache, in its own thread.

        Raises:
            SaeError: the weights cannot be loaded, or their files have changed since they were loaded before.
        """
        loaded = sae.load(self._described, device=self._device, center=self.center, head_slice=self.head_slice)
        try:
            stats = {name: path.stat() for name, path in loaded.files.items()}
        except OSError:  # a file was deleted since it was read
            raise errors.changed_meanwhile(self.sae_id) from None
        file_stats = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
        if self._file_stats not in (None, file_stats):
            raise errors.changed_meanwhile(self.sae_id)
        self._file_stats = file_stats
        return loaded
