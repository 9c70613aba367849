"""One file of limits -> its layers, each table checked."""

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
_LIMIT_KEYS = ("max", "min", "unit", "source", "worst")
_MARGIN_KEYS = ("measure", "margin", "unit", "source")
_GOLDEN_TEXTS = ("prompt", "answer", "source")
_GOLDEN_NUMBERS = ("probability_clean", "probability_spliced", "tolerance")
_LAYOUT = (
    'schema = 1, then tables [default.CHECK.MEASURE], [release."NAME".CHECK.MEASURE], '
    '[release."NAME".sae."GLOB".CHECK.MEASURE], and regression.CHECK for CHECK.MEASURE'
)

Toml = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The limits of one table of a file."""

    release: str | None
    """fnmatch pattern, like *sae*; None: matches everything."""
    sae: str | None
    limits: tuple[Limit, ...]
    replaced: frozenset[str] = frozenset()
    """checks whose limits here replace all limits of wider tables, not only those on the same measure."""
    margins: tuple[Margin, ...] = ()
    golden: Golden | None = None

    def applies(self, release: str, sae_id: str) -> bool:
        return (self.release is None or fnmatch.fnmatchcase(release, self.release)) and (
            self.sae is None or fnmatch.fnmatchcase(sae_id, self.sae)
        )

    @property
    def tables(self) -> Iterator[tuple[str, str]]:
        """(check, file and table) of each table."""
        yield from ((limit.check, limit.where) for limit in self.limits)
        yield from ((margin.check, margin.where) for margin in self.margins)
        if self.golden is not None:
            yield checks.GOLDEN.name, self.golden.where

    @property
    def breadth(self) -> int:
        return (self.release is None) + (self.sae is None)


def read(path: Path, label: str) -> tuple[tuple[Layer, ...], bool]:
    """The layers of the file *path*, which `where` calls *label*, and whether it has accepted shifts."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, ValueError) as problem:
        raise errors.bad_thresholds(str(path), "", f"cannot be read ({problem})", "a TOML file") from None
    shifts = accepted_shifts.parse(document, text, path)  # WHY: an invalid entry ends the run that ignores it, too
    last_first = reversed(list(_Reader(path, label).layers(document)))
    return tuple(sorted(last_first, key=lambda layer: layer.breadth)), bool(shifts)


class _Reader:
    """Reads one document. Its methods get the place of their table in the file, for messages."""

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self.label = label

    def layers(self, document: Toml) -> Iterator[Layer]:
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

    def layer(self, table: Toml, place: str, release: str | None, sae: str | None) -> Layer:
        margins = self.table(table, "regression", place)
        self.only(margins, _CHECKS, f"{place}.regression")
        has_golden = sae is not None and "golden" in table  # WHY: in a wider table it is an unknown key
        rest = ("regression", "golden") if has_golden else ("regression",)
        of_checks = {key: value for key, value in table.items() if key not in rest}
        return Layer(
            release=release,
            sae=sae,
            limits=self.limits(of_checks, place),
            replaced=frozenset(check for check, of in of_checks.items() if isinstance(of, dict) and _names_measure(of)),
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
        where = f"{self.label} [{place}]"
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
        return tuple(
            limit
            for check in table
            for limit in self.of_check(check, self.table(table, check, place), f"{place}.{check}")
        )

    def of_check(self, check: str, table: Toml, place: str) -> Iterator[Limit]:
        """The limit of each measure of a table; an older file has the only limit of a check in the table itself."""
        if _names_measure(table):
            self.only(table, ("measure", *_LIMIT_KEYS), place)
            yield self.limit(check, table, place)
            return
        self.only(table, [measure.name for measure in checks.named(check).measures], place)
        if not table:
            raise self.invalid(place, "no limit", f"a table [{place}.MEASURE]")
        for measure in table:
            of_measure = self.table(table, measure, place)
            self.only(of_measure, _LIMIT_KEYS, f"{place}.{measure}")
            yield self.limit(check, {**of_measure, "measure": measure}, f"{place}.{measure}")

    def limit(self, check: str, table: Toml, place: str) -> Limit:
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
            where=f"{self.label} [{place}]",
            worst=self.worst(table, place),
        )

    def worst(self, table: Toml, place: str) -> float | None:
        if "worst" not in table:
            return None
        value = self.number(table, "worst", place)
        if value <= 1:
            raise self.invalid(place, f"worst {value:g}", "how many times the limit one sequence may cost: above 1")
        return value

    def golden(self, tables: object, place: str) -> Golden:
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise self.invalid(place, "not tables", f"[[{place}]], one for each prompt")
        prompts = tuple(self.golden_prompt(table, place) for table in tables)
        rules = {(table["bos"], table["special_tokens"]) for table in tables}
        if len(rules) > 1:
            raise self.invalid(place, "several rules", "one bos and one special_tokens for all prompts of an SAE")
        ((bos, special_tokens),) = rules
        return Golden(
            prompts=prompts, prepend_bos=bos, special_tokens=special_tokens, where=f"{self.label} [[{place}]]"
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


def _names_measure(table: Toml) -> bool:
    """Whether *table* is the only limit of its check, as in an older file, and no table of limits by measure."""
    return "measure" in table or (bool(table) and not any(isinstance(value, dict) for value in table.values()))
