"""What was asked, parsed and checked once. Standard library only: the plugin reads this in every pytest run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from sae_checks import errors
from sae_checks.plan import flags, output_folder, shards

SpecialTokens = Literal["keep", "replace"]
Bos = Literal["auto", "bos", "no-bos"]
Otherwise = TypeVar("Otherwise", int, None)
Profile = Literal["smoke", "release", "full"]

NO_CORPUS = "none"
"""what --sae-lambada and --sae-cbt take to switch their checks off."""
N_LEAST_TO_DECIDE = 16
"""Sequences, passages or queries without which no check can pass, as `judging.budget` has it for a small plan."""
PROFILES: tuple[Profile, ...] = ("smoke", "release", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run, as asked."""

    release: str
    name: str | None = None
    """of the release in limits, records and histories; None: that of its folder or repository."""
    allow_pickle: bool = False
    sae_ids: tuple[str, ...] = ()
    """fnmatch patterns; empty means every SAE."""
    shard: str | None = None
    """I/N; None: the whole release."""
    model: str | None = None
    corpus: str | None = None
    lambada: str | None = None
    cbt: str | None = None
    profile: Profile = "release"
    n_sequences: int = 256
    n_context_tokens: int | None = None
    """None: chosen from the model and the SAEs, see `plan.make`."""
    n_train_context_tokens: int | None = None
    """training context of SAEs whose configuration does not say it."""
    n_study_sequences: int = 64
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    """of the language model; SAEs and losses are float32."""
    n_batch_tokens: int = 4096
    memory_gib: float | None = None
    """for the weights of SAEs; None: a share of what is free."""
    special_tokens: SpecialTokens = "keep"
    bos: Bos = "auto"
    """Whether one BOS stands before every sequence; auto: as each SAE was trained."""
    thresholds: Path | None = None
    out: Path | None = None
    """the folder for everything that the run writes; None: nothing is written."""
    history: str | None = None
    """a folder or URL, see `history.place`."""
    baseline: str | None = None
    """a path, `last`, or a git revision, see `baseline.load`."""
    explain: tuple[str, ...] = ()
    """fnmatch patterns of the SAEs that are explained."""

    @property
    def record(self) -> Path | None:
        """The file of the run record; None: it is not written."""
        return None if self.out is None else self.out / output_folder.RECORD

    @property
    def report(self) -> Path | None:
        """The folder of the report; None: it is not written."""
        return None if self.out is None else self.out / output_folder.REPORT

    @property
    def n_items(self) -> int:
        """Lambada passages, at most: 1000 for 256 sequences."""
        return round(self.n_sequences * 1000 / 256)

    @property
    def n_queries(self) -> int:
        """Queries of the Children's Book Test, at most: 200 for 256 sequences."""
        return max(N_LEAST_TO_DECIDE, round(self.n_sequences * 200 / 256))

    @property
    def n_study_items(self) -> int:
        """Lambada passages for a stack: four for each sequence of a study, since only last words are scored."""
        return 4 * self.n_study_sequences


def parse(raw: Mapping[str, str | list[str] | None]) -> Options:
    """
    Options from what the command line and the ini file gave, by option key (`sae_release`, ...).

    Raises:
        UsageError: a value that is no whole number, device, dtype or rule.
    """
    asked = _Raw(raw)
    corpus = asked.path_or_name("sae_corpus")
    if corpus == NO_CORPUS:
        raise flags.bad_value("sae_corpus", corpus, "text, since every SAE is judged on text; -k selects checks")
    profile: Profile = next(p for p in PROFILES if p == asked.choice("sae_profile"))
    special_tokens, bos = _special_tokens(asked.text("sae_special_tokens") or "")
    return Options(
        release=asked.text("sae_release") or "",
        name=asked.name("sae_name"),
        allow_pickle=asked.text("sae_allow_pickle") is not None,
        shard=_shard(asked.text("sae_shard")),
        sae_ids=asked.patterns("sae_id"),
        model=asked.path_or_name("sae_model"),
        corpus=corpus,
        lambada=asked.path_or_name("sae_lambada"),
        cbt=asked.path_or_name("sae_cbt"),
        profile=profile,
        n_sequences=asked.count_that_decides("sae_sequences") or (64 if profile == "smoke" else 256),
        n_context_tokens=asked.count_or("sae_context", None, least=2),
        n_train_context_tokens=asked.count_or("sae_train_context", None),
        n_study_sequences=asked.count_that_decides("sae_study_sequences", or_zero=True),
        seed=asked.count("sae_seed", least=0),
        device=asked.choice("sae_device"),
        dtype=asked.choice("sae_dtype"),
        n_batch_tokens=asked.count("sae_batch_tokens"),
        memory_gib=_gib("sae_memory", asked.text("sae_memory")),
        special_tokens=special_tokens,
        bos=bos,
        thresholds=asked.path("sae_thresholds"),
        out=asked.path("sae_out"),
        history=asked.path_or_name("sae_history"),
        baseline=asked.path_or_name("sae_baseline"),
        explain=asked.patterns("sae_explain"),
    )


class _Raw:
    """What was asked, by option key, each read as what it should be."""

    def __init__(self, raw: Mapping[str, str | list[str] | None]) -> None:
        self._raw = raw

    def text(self, key: str) -> str | None:
        value = self._raw.get(key)
        assert not isinstance(value, list), key
        return value or None

    def patterns(self, key: str) -> tuple[str, ...]:
        found = self._raw.get(key) or []
        return tuple([found] if isinstance(found, str) else found)

    def path(self, key: str) -> Path | None:
        value = self.text(key)
        try:
            return None if value is None else Path(value).expanduser()
        except RuntimeError:  # ~name of nobody
            raise flags.bad_value(key, str(value), "a path whose home folder exists") from None

    def path_or_name(self, key: str) -> str | None:
        value = self.text(key)
        return str(self.path(key)) if value is not None and value.startswith("~") else value

    def name(self, key: str) -> str | None:
        value = self.text(key)
        if value is not None and value != errors.shown(value.strip()):
            raise flags.bad_value(key, value, "one printable line of at most 120 characters")
        return value

    def count(self, key: str, *, least: int = 1) -> int:
        return _whole_number(key, self.text(key) or "", least=least)

    def count_that_decides(self, key: str, *, or_zero: bool = False) -> int:
        """A number of sequences from which a check can be decided; 0: nothing was asked, or 0 with *or_zero*."""
        value = self.text(key)
        if value is None:
            return 0
        expected = f"a whole number, at least {N_LEAST_TO_DECIDE}: fewer decide nothing{' (0: none)' * or_zero}"
        number = _whole_number(key, value, least=0, expected=expected)
        if number < N_LEAST_TO_DECIDE and (number or not or_zero):
            raise flags.bad_value(key, value, expected)
        return number

    def count_or(self, key: str, otherwise: Otherwise, *, least: int = 1) -> int | Otherwise:
        return self.count(key, least=least) if self.text(key) else otherwise

    def choice(self, key: str) -> str:
        value = self.text(key) or ""
        choices = next(spec.choices for spec in flags.SPECS if spec.key == key)
        if value not in choices:
            raise flags.bad_value(key, value, f"one of {', '.join(choices)}")
        return value


def _special_tokens(rule: str) -> tuple[SpecialTokens, Bos]:
    """The two parts of *rule*, each of which may be left out."""
    keep: dict[str, SpecialTokens] = {"keep": "keep", "replace": "replace"}
    bos: dict[str, Bos] = {"auto": "auto", "bos": "bos", "no-bos": "no-bos"}
    parts = [part.strip() for part in rule.split(",")]
    of_keep, of_bos = ([part for part in parts if part in known] for known in (keep, bos))
    if len(of_keep) > 1 or len(of_bos) > 1 or len(of_keep) + len(of_bos) < len(parts):
        expected = "keep or replace, and with a comma auto, bos or no-bos"
        raise flags.bad_value("sae_special_tokens", rule, expected)
    return keep[of_keep[0]] if of_keep else "keep", bos[of_bos[0]] if of_bos else "auto"


def _whole_number(key: str, value: str, *, least: int, expected: str = "") -> int:
    expected = expected or f"a whole number, at least {least}"
    try:
        number = int(value)
    except ValueError:
        raise flags.bad_value(key, value, expected) from None
    if number < least:
        raise flags.bad_value(key, value, expected)
    return number


def _gib(key: str, value: str | None) -> float | None:
    try:
        number = None if value is None else float(value)
    except ValueError:
        number = math.nan
    if number is not None and not 0 < number < math.inf:
        raise flags.bad_value(key, str(value), "a number of GiB above 0")
    return number


def _shard(share: str | None) -> str | None:
    return None if share is None else str(shards.parse(share))
