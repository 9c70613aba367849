"""
SAEs whose weights are in memory while there is room: loaded when they are first needed, or just before.

A release may be larger than memory. What was not used for the longest time makes room for what is asked, and is loaded
again when its turn comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import torch

from sae_checks import errors
from sae_checks.provenance import SaeFacts
from sae_checks.release.converters import quiet
from sae_checks.release.release import Sae
from sae_checks.saes import sae
from sae_checks.saes.sae import LoadedSae, Reconstruction

_N_BYTES = 4
"""of a weight in float32."""
_Stamp = dict[str, tuple[int, int]]
"""Size and time of every file that an SAE was made from."""


class Shelf:
    """Room for the weights of some SAEs. Only one thread may ask it for anything; another one loads."""

    def __init__(self, n_bytes: Callable[[], int]) -> None:
        self._n_bytes_asked = n_bytes
        self._held: OrderedDict[ShelvedSae, Future[LoadedSae]] = OrderedDict()
        self._loader = ThreadPoolExecutor(1, "sae-checks loads")

    @cached_property
    def n_bytes(self) -> int:
        """That there is room for, settled when it is first asked: the model should be loaded by then."""
        return self._n_bytes_asked()

    def groups(self, saes: Sequence[ShelvedSae]) -> list[list[ShelvedSae]]:
        """*saes* in their order, in as few groups as that allows of which each has room; one may be too large alone."""
        found: list[list[ShelvedSae]] = []
        for one in saes:
            if found and sum(each.n_bytes for each in found[-1]) + one.n_bytes <= self.n_bytes:
                found[-1].append(one)
            else:
                found.append([one])
        return found

    def load_ahead(self, saes: Sequence[ShelvedSae]) -> None:
        """Begin to load *saes*, a group that has room, in their order; call `settle` when they have been measured."""
        with quiet():
            import sae_lens  # noqa: F401 -- not by two threads at once: its imports are circular

        for one in saes:
            if not one.is_broken:
                self._start(one, keep=saes)

    def settle(self) -> None:
        """Give up what has not begun to load and wait for what has: nothing goes on behind the caller's back."""
        for one in [one for one, held in self._held.items() if held.cancel()]:
            del self._held[one]
        for held in self._held.values():
            held.exception()

    def get(self, one: ShelvedSae) -> LoadedSae:
        """
        *one*, loaded if it is not.

        Raises:
            SaeError: it cannot be loaded.
        """
        self._start(one, keep=())
        self._held.move_to_end(one)
        try:
            return self._held[one].result()
        except errors.SaeError:
            del self._held[one]
            raise

    def _start(self, one: ShelvedSae, *, keep: Sequence[ShelvedSae]) -> None:
        if one in self._held:
            return
        # The least recently used goes first, but none that is needed with this one.
        for other in [each for each in self._held if each not in keep]:
            if sum(each.n_bytes for each in self._held) + one.n_bytes > self.n_bytes:
                self._held.pop(other).exception()  # what is still being loaded takes room until it is there
        self._held[one] = self._loader.submit(one.load)


class ShelvedSae:
    """An SAE that is known, and whose weights are on a shelf when they are needed. A `sae.Reconstructs`."""

    def __init__(self, described: Sae, shelf: Shelf, *, device: torch.device, center: bool, part: slice) -> None:
        self.sae_id = described.sae_id
        self.hook = described.hook
        self.hook_out = described.hook_out
        self.part = part
        self.n_training_context_tokens = described.n_training_context_tokens
        self.center = center
        self.n_bytes = (described.d_in + described.d_out) * described.d_sae * _N_BYTES
        """of encoder and decoder; the rest is small, but in temporal SAEs."""
        self._described = described
        self._device = device
        self._shelf = shelf
        self._problem: errors.SaeError | None = None
        self._stamp: _Stamp | None = None

    @property
    def is_broken(self) -> bool:
        """It could not be loaded once, and will not be tried again."""
        return self._problem is not None

    def loaded(self) -> LoadedSae:
        """
        It, with its weights.

        Raises:
            SaeError: they cannot be loaded, the same one each time.
        """
        if self._problem is not None:
            raise self._problem
        try:
            with quiet():
                return self._shelf.get(self)
        except errors.SaeError as problem:
            self._problem = problem
            raise

    def is_sound(self) -> bool:
        """Whether its weights can be loaded; they are, unless that is known."""
        if self._stamp is None and self._problem is None:
            try:
                self.loaded()
            except errors.SaeError:
                return False
        return self._problem is None

    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        """As `LoadedSae.reconstruct`; raises SaeError where it cannot be loaded."""
        return self.loaded().reconstruct(x)

    @cached_property
    def fingerprint(self) -> str:
        """As `LoadedSae.fingerprint`; raises SaeError where it cannot be loaded."""
        return self.loaded().fingerprint

    @cached_property
    def facts(self) -> SaeFacts:
        """What was loaded, with the hash of every file that it was made from."""
        return sae.facts(self._described, self.loaded())

    def load(self) -> LoadedSae:
        """
        Load it: for the shelf, which does so in another thread.

        Raises:
            SaeError: it cannot be loaded, or its files are no longer those that it was loaded from before.
        """
        found = sae.load(self._described, device=self._device, center=self.center, part=self.part)
        try:
            stats = {name: path.stat() for name, path in found.files.items()}
        except OSError:  # gone since it was read
            raise errors.changed_meanwhile(self.sae_id) from None
        stamp = {name: (of.st_size, of.st_mtime_ns) for name, of in stats.items()}
        if self._stamp not in (None, stamp):
            raise errors.changed_meanwhile(self.sae_id)
        self._stamp = stamp
        return found
