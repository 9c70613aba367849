"""
thresholds.toml -> limits, margins and golden prompts.

A file has three layers: tables for SAE ids of a release, for a release, and defaults; the narrowest that applies
counts. All layers of the user's file come before the shipped file, so that a shipped limit of a release never replaces
a default of the user.
"""

from __future__ import annotations

import fnmatch
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sae_checks import checks, errors
from sae_checks.judging import accepted_shifts
from sae_checks.judging.limits import Limit, Margin
from sae_checks.plan.golden_prompts import Golden, GoldenPrompt

_CHECKS = tuple(check.name for check in checks.CHECKS if not check.is_exact)
_LIMIT_KEYS = ("measure", "max", "min", "unit", "source")
_MARGIN_KEYS = ("measure", "margin", "unit", "source")
_GOLDEN_TEXTS = ("prompt", "answer", "source")
_GOLDEN_NUMBERS = ("probability_clean", "probability_spliced", "tolerance")
_LAYOUT = (
    'schema = 1, then tables [default.CHECK], [release."NAME".CHECK], [release."NAME".sae."GLOB".CHECK], and '
    "regression.CHECK for CHECK"
)

Toml = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """The limits of one table of a file."""

    release: str | None
    """fnmatch pattern, like *sae*; None: matches everything."""
    sae: str | None
    limits: tuple[Limit, ...]
    margins: tuple[Margin, ...] = ()
    golden: Golden | None = None

    def applies(self, release: str, sae_id: str) -> bool:
        return (self.release is None or fnmatch.fnmatchcase(release, self.release)) and (
            self.sae is None or fnmatch.fnmatchcase(sae_id, self.sae)
        )

    @property
    def breadth(self) -> int:
        return (self.release is None) + (self.sae is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The limits of one or more files; earlier files come first."""

    files: tuple[tuple[_Layer, ...], ...]
    """layers of each file, the narrowest first; of equally narrow ones the last in the file first."""
    paths: tuple[str, ...]

    def limit(self, release: str, sae_id: str, check: str) -> Limit:
        """
        The limit of *check* of an SAE.

        Raises:
            UsageError: no file has one.
        """
        found = self.find(release, sae_id, check)
        if found is None:
            raise errors.no_limit(check, sae_id, self.paths)
        return found

    def find(self, release: str, sae_id: str, check: str) -> Limit | None:
        """The limit of *check* of an SAE; None: no file has one."""
        for layers in self.files:
            for layer in layers:
                if layer.applies(release, sae_id):
                    for limit in layer.limits:
                        if limit.check == check:
                            return limit
        return None

    def default(self, check: str) -> Limit | None:
        """The default limit of *check* in the shipped file; None: it has none."""
        defaults = (limit for layer in self.files[-1] if layer.release is None for limit in layer.limits)
        return next((limit for limit in defaults if limit.check == check), None)

    def margin(self, release: str, sae_id: str, check: str) -> Margin | None:
        """The margin of *check* of an SAE; None: no file has one."""
        applying = (layer for layers in self.files for layer in layers if layer.applies(release, sae_id))
        return next((margin for layer in applying for margin in layer.margins if margin.check == check), None)

    def golden(self, release: str, sae_id: str) -> Golden | None:
        """The golden prompts of an SAE; None: it has none."""
        having = (layer for layers in self.files for layer in layers if layer.golden is not None)
        return next((layer.golden for layer in having if layer.applies(release, sae_id)), None)


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
    paths = [*([own] if own is not None else []), shipped or shipped_path()]
    return Thresholds(
        files=tuple(_read(path) for path in paths),
        paths=tuple(path.name for path in paths),
    )


def _read(path: Path) -> tuple[_Layer, ...]:
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, ValueError) as problem:
        raise errors.bad_thresholds(str(path), "", f"cannot be read ({problem})", "a TOML file") from None
    accepted_shifts.parse(document, text, path)  # WHY: an invalid entry ends the run, even one that the run ignores
    last_first = reversed(list(_Reader(path).layers(document)))
    return tuple(sorted(last_first, key=lambda layer: layer.breadth))


class _Reader:
    """Reads one document. Its methods get the place of their table in the file, for messages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def layers(self, document: Toml) -> Iterator[_Layer]:
        self.only(document, ("schema", "default", "release", accepted_shifts.KEY), "the top")
        if document.get("schema") != 1 or type(document["schema"]) is not int:
            raise self.invalid("the top", f"schema is {document.get('schema')!r}", _LAYOUT)
        yield self.layer(self.table(document, "default", ""), "default", None, None)
        for release, table in self.tables(document, "release", ""):
            place = f'release."{release}"'
            of_release = {key: value for key, value in table.items() if key != "sae"}
            yield self.layer(of_release, place, release, None)
            for sae, of_sae in self.tables(table, "sae", place):
                yield self.layer(of_sae, f'{place}.sae."{sae}"', release, sae)

    def layer(self, table: Toml, place: str, release: str | None, sae: str | None) -> _Layer:
        margins = self.table(table, "regression", place)
        self.only(margins, _CHECKS, f"{place}.regression")
        has_golden = sae is not None and "golden" in table  # WHY: in a wider table it is an unknown key
        rest = ("regression", "golden") if has_golden else ("regression",)
        return _Layer(
            release=release,
            sae=sae,
            limits=self.limits({key: value for key, value in table.items() if key not in rest}, place),
            margins=tuple(
                self.margin(check, self.table(margins, check, f"{place}.regression"), place) for check in margins
            ),
            golden=self.golden(table["golden"], f"{place}.golden") if has_golden else None,
        )

    def margin(self, check: str, table: Toml, place: str) -> Margin:
        place = f"{place}.regression.{check}"
        self.only(table, _MARGIN_KEYS, place)
        measure, unit, source = self.measured(check, table, place)
        value = self.number(table, "margin", place)
        if value <= 0:
            raise self.invalid(place, f"margin {value:g}", "a margin above 0: no test shows that two SAEs are equal")
        where = f"{self.path.name} [{place}]"
        return Margin(check=check, measure=measure, value=value, unit=unit, source=source, where=where)

    def measured(self, check: str, table: Toml, place: str) -> tuple[str, str, str]:
        """(measure, unit, source) of a table."""
        measure, unit, source = (self.text(table, key, place) for key in ("measure", "unit", "source"))
        expected = checks.named(check).unit_of(measure)
        if expected is None:
            names = ", ".join(m.name for m in checks.named(check).measures)
            raise self.invalid(place, f"measure {measure!r}", f"a measure of {check}: {names}")
        if unit != expected:
            raise self.invalid(place, f"unit {unit!r}", f"unit = {expected!r} for {measure}")
        return measure, unit, source

    def limits(self, table: Toml, place: str) -> tuple[Limit, ...]:
        self.only(table, _CHECKS, place)
        return tuple(self.limit(check, self.table(table, check, place), f"{place}.{check}") for check in table)

    def limit(self, check: str, table: Toml, place: str) -> Limit:
        self.only(table, _LIMIT_KEYS, place)
        measure, unit, source = self.measured(check, table, place)
        kinds: list[Literal["max", "min"]] = [kind for kind in ("max", "min") if kind in table]
        if not kinds:
            raise self.invalid(place, "neither max nor min", "max, min, or both of them for a range")
        floor = self.number(table, "min", place) if len(kinds) == 2 else None
        if floor is not None and floor > self.number(table, "max", place):
            raise self.invalid(place, "min is above max", "min <= max")
        return Limit(
            check=check,
            measure=measure,
            kind=kinds[0],
            value=self.number(table, kinds[0], place),
            floor=floor,
            unit=unit,
            source=source,
            where=f"{self.path.name} [{place}]",
        )

    def golden(self, tables: object, place: str) -> Golden:
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise self.invalid(place, "not tables", f"[[{place}]], one for each prompt")
        prompts = tuple(self.golden_prompt(table, place) for table in tables)
        rules = {(table["bos"], table["special_tokens"]) for table in tables}
        if len(rules) > 1:
            raise self.invalid(place, "several rules", "one bos and one special_tokens for all prompts of an SAE")
        ((bos, special_tokens),) = rules
        return Golden(
            prompts=prompts, prepend_bos=bos, special_tokens=special_tokens, where=f"{self.path.name} [[{place}]]"
        )

    def golden_prompt(self, table: Toml, place: str) -> GoldenPrompt:
        self.only(table, (*_GOLDEN_TEXTS, *_GOLDEN_NUMBERS, "bos", "special_tokens"), place)
        prompt, answer, source = (self.text(table, key, place) for key in _GOLDEN_TEXTS)
        clean, spliced, tolerance = (self.number(table, key, place) for key in _GOLDEN_NUMBERS)
        if not (0 <= clean <= 1 and 0 <= spliced <= 1):
            raise self.invalid(place, f"probabilities {clean:g} and {spliced:g}", "probabilities from 0 to 1")
        if not 0 < tolerance < 0.5:  # WHY: with 0.5 no probability is too far from an expected 0.5
            raise self.invalid(place, f"tolerance {tolerance:g}", "a tolerance above 0 and below 0.5")
        if not isinstance(table.get("bos"), bool):
            raise self.invalid(place, f"bos is {table.get('bos')!r}", "bos = true or false")
        if table.get("special_tokens") not in ("keep", "replace"):
            got = f"special_tokens is {table.get('special_tokens')!r}"
            raise self.invalid(place, got, 'special_tokens = "keep" or "replace"')
        return GoldenPrompt(
            prompt=prompt,
            answer=answer,
            probability_clean=clean,
            probability_spliced=spliced,
            tolerance=tolerance,
            source=source,
        )

    def only(self, table: Toml, known: Sequence[str], place: str) -> None:
        for key in table:
            if key not in known:
                raise self.invalid(place, f"unknown key {key!r}", f"one of {', '.join(known)}")

    def table(self, parent: Toml, key: str, place: str) -> Toml:
        value = parent.get(key, {})
        if not isinstance(value, dict):
            raise self.invalid(f"{place}.{key}".lstrip("."), "not a table", _LAYOUT)
        return value

    def tables(self, parent: Toml, key: str, place: str) -> Iterator[tuple[str, Toml]]:
        of_key = self.table(parent, key, place)
        for name in of_key:
            yield name, self.table(of_key, name, f"{place}.{key}".lstrip("."))

    def text(self, table: Toml, key: str, place: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.invalid(place, f"{key} is {value!r}", f"{key} = a text")
        return value

    def number(self, table: Toml, key: str, place: str) -> float:
        value = table.get(key)
        try:
            number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
        except OverflowError:
            number = math.nan
        if not math.isfinite(number):
            raise self.invalid(place, f"{key} is {value!r}", f"{key} = a finite number")
        return number

    def invalid(self, place: str, problem: str, expected: str) -> errors.UsageError:
        return errors.bad_thresholds(str(self.path), f"[{place}]", problem, expected)
