"""
thresholds.toml -> limits, margins and golden prompts.

A file has three layers: tables for SAE ids of a release, for a release, and defaults; for each measure the narrowest
that applies counts. All layers of the user's file come before the shipped file, so that a shipped limit of a release
never replaces a default of the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sae_checks import checks, errors
from sae_checks.judging import limits_file
from sae_checks.judging.limits import Limit, Margin
from sae_checks.judging.limits_file import Layer
from sae_checks.plan.golden_prompts import Golden


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of a file: a limit, a margin or golden prompts, and the release and SAE that it is for."""

    name: str
    """as the file writes it, `[release."NAME".CHECK]`."""
    release: str | None
    """fnmatch pattern, like *sae*; None: matches everything."""
    sae: str | None
    check: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The limits of one or more files; earlier files come first."""

    files: tuple[tuple[Layer, ...], ...]
    """layers of each file, the narrowest first; of equally narrow ones the last in the file first."""
    paths: tuple[str, ...]
    """how `where` of a limit names each file."""
    has_accepted_shifts: bool = False
    """whether the user's file has any; they are no limits."""

    @property
    def own_tables(self) -> tuple[Table, ...] | None:
        """The tables of the user's file; None: there is no such file."""
        if len(self.files) < 2:
            return None
        return tuple(
            Table(name=where.partition(" ")[2], release=layer.release, sae=layer.sae, check=check)
            for layer in reversed(self.files[0])
            for check, where in layer.tables
        )

    def limits(self, release: str, sae_id: str, check: str) -> tuple[Limit, ...]:
        """
        The limits of *check* of an SAE, one for each limited measure: first that which has a margin.

        Raises:
            UsageError: no file has one.
        """
        found = self.find(release, sae_id, check)
        if not found:
            raise errors.no_limit(check, sae_id, self.paths)
        return found

    def find(self, release: str, sae_id: str, check: str) -> tuple[Limit, ...]:
        """As `limits`; empty: no file has one."""
        found: dict[str, Limit] = {}
        for layer in self._applying(release, sae_id):
            for limit in layer.limits:
                if limit.check == check:
                    found.setdefault(limit.measure, limit)
            if check in layer.replaced:
                break
        margin = self.margin(release, sae_id, check)
        first = [] if margin is None else [margin.measure]
        order = [*first, *(measure.name for measure in checks.named(check).measures)]
        return tuple(sorted(found.values(), key=lambda limit: order.index(limit.measure)))

    def defaults(self, check: str) -> tuple[Limit, ...]:
        """The default limits of *check* in the shipped file."""
        limits = (limit for layer in self.files[-1] if layer.release is None for limit in layer.limits)
        return tuple(limit for limit in limits if limit.check == check)

    def margin(self, release: str, sae_id: str, check: str) -> Margin | None:
        """The margin of *check* of an SAE; None: no file has one."""
        applying = self._applying(release, sae_id)
        return next((margin for layer in applying for margin in layer.margins if margin.check == check), None)

    def golden(self, release: str, sae_id: str) -> Golden | None:
        """The golden prompts of an SAE; None: it has none."""
        return next((layer.golden for layer in self._applying(release, sae_id) if layer.golden is not None), None)

    def _applying(self, release: str, sae_id: str) -> Iterator[Layer]:
        """The layers that apply to an SAE, the narrowest of each file first."""
        return (layer for layers in self.files for layer in layers if layer.applies(release, sae_id))


def shipped_path() -> Path:
    """The shipped thresholds.toml: package data in a wheel, the top-level file in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "thresholds.toml"
    return packaged if packaged.is_file() else package.parent / "thresholds.toml"


def load(own: Path | None = None, *, shipped: Path | None = None) -> Thresholds:
    """
    Read the limits of the user's *own* file and of the *shipped* one.

    Raises:
        UsageError: a file cannot be read, or has an invalid entry anywhere.
    """
    shipped = shipped or shipped_path()
    files = [(shipped, shipped.name)]
    if own is not None:
        # WHY: `where` of a limit must tell the two files apart
        label = own.name if own.name != shipped.name else f"{own.resolve().parent.name}/{own.name}"
        files.insert(0, (own, label))
    read = [limits_file.read(path, label) for path, label in files]
    return Thresholds(
        files=tuple(layers for layers, _ in read),
        paths=tuple(label for _, label in files),
        has_accepted_shifts=own is not None and read[0][1],
    )
