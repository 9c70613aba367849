"""Every `--sae-` option as pytest offers it, and what the command line and the ini file said. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from sae_checks import errors

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "bfloat16", "float16")
PROFILES = ("smoke", "release", "full")

Group = Literal["what", "in what", "how much", "limits", "output", "advanced"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""The groups of options, in the order of --help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSpec:
    """One `--sae-` option; its ini key is the same name with underscores."""

    flag: str
    group: Group
    metavar: str
    help: str
    example: str = ""
    """A value that the option takes, for messages; empty for a switch."""
    choices: tuple[str, ...] = ()
    """All values that the option takes; empty: others, too."""
    default: str | None = None
    repeatable: bool = False
    is_switch: bool = False

    @property
    def key(self) -> str:
        """The ini key and argparse destination: `--sae-model` -> `sae_model`."""
        return key_of(self.flag)


def key_of(flag: str) -> str:
    """The ini key and argparse destination of *flag*."""
    return flag.removeprefix("--").replace("-", "_")


SPECS: tuple[OptionSpec, ...] = (
    OptionSpec(
        flag="--sae-release",
        group="what",
        example="demo",
        metavar="NAME",
        help="the release: a folder of SAEs; a Hub repository org/name or a name of SAE Lens's registry, either with "
        "@REVISION; demo or demo-broken",
    ),
    OptionSpec(
        flag="--sae-name",
        group="what",
        example="my-saes",
        metavar="NAME",
        help="the name of the release in limits, records and histories; default: that of its folder or repository",
    ),
    OptionSpec(
        flag="--sae-id",
        group="what",
        example="blocks.0.*",
        metavar="GLOB",
        help="judge only the SAEs whose id matches (repeatable)",
        repeatable=True,
    ),
    OptionSpec(
        flag="--sae-shard",
        group="what",
        example="1/4",
        metavar="I/N",
        help="judge only part I of N of the SAEs; sae-checks merge joins the records",
    ),
    OptionSpec(
        flag="--sae-model",
        group="in what",
        example="gpt2",
        metavar="NAME",
        help="the language model: a folder in Hugging Face format, or a Hub repository org/name[@REVISION]; "
        "default: the model that the release names",
    ),
    OptionSpec(
        flag="--sae-corpus",
        group="in what",
        example="text.jsonl",
        metavar="TEXT",
        help="held-out text: a .jsonl or .parquet file (text, or token ids as input_ids), a .txt file, or a Hub "
        "dataset org/name[@REVISION][:CONFIG][:SPLIT]; default on the Hub: the SAEs' training text if SAE "
        "Lens knows it and it can be read, Open WebText if they name none",
    ),
    OptionSpec(
        flag="--sae-lambada",
        group="in what",
        example="EleutherAI/lambada_openai",
        metavar="TEXT",
        help="passages whose last word is the answer: a .jsonl or .parquet file (text), or a Hub dataset; none "
        "switches their checks off; default on the Hub: EleutherAI/lambada_openai",
    ),
    OptionSpec(
        flag="--sae-cbt",
        group="in what",
        example=":NE",
        metavar="TEXT",
        help="Children's Book Test: a .jsonl or .parquet file (sentences, question, answer, options), or a Hub "
        "dataset; none switches its check off; default on the Hub: cam-cst/cbt:CN; :NE takes named entities",
    ),
    OptionSpec(
        flag="--sae-context",
        group="in what",
        example="128",
        metavar="N",
        help="tokens per sequence; default: the model's context, but at most 1024 or twice the longest training "
        "context",
    ),
    OptionSpec(
        flag="--sae-profile",
        group="how much",
        example="release",
        choices=PROFILES,
        metavar="P",
        default="release",
        help="release: INCONCLUSIVE fails; smoke: a quarter of the text, and INCONCLUSIVE passes; full: all of the "
        "text, and zero ablation, for calibration, baselines and curves",
    ),
    OptionSpec(
        flag="--sae-sequences",
        group="how much",
        example="256",
        metavar="N",
        help="at most N sequences of text, fewer if they decide; default: 256, smoke 64. For 256 there are 1000 "
        "Lambada passages and 200 queries of the Children's Book Test",
    ),
    OptionSpec(
        flag="--sae-study-sequences",
        group="how much",
        example="64",
        metavar="N",
        default="64",
        help="sequences for propagation, next_sae, last_sae, own_layer, random_error and stacked, which splice "
        "several times; four times as many passages for stacked_lambada; 0 leaves these and distinct out",
    ),
    OptionSpec(
        flag="--sae-thresholds",
        group="limits",
        example="limits.toml",
        metavar="FILE",
        help="limits that take precedence over the shipped thresholds.toml",
    ),
    OptionSpec(
        flag="--sae-baseline",
        group="limits",
        example="last",
        metavar="RUN",
        help="compare with an earlier run on the same tokens. last: the last in --sae-out or --sae-history that was "
        "green and judged every check; or a record, the id of a run in the history, or a git revision (REVISION or "
        "REVISION:PATH)",
    ),
    OptionSpec(
        flag="--sae-out",
        group="output",
        example="gate-report",
        metavar="DIR",
        help="write record.json, report/, junit.xml and benchmark.json into DIR; without it a run writes nothing",
    ),
    OptionSpec(
        flag="--sae-history",
        group="output",
        example="history",
        metavar="URL",
        help="add the record to a history of runs: a folder, or any URL that fsspec opens",
    ),
    OptionSpec(
        flag="--sae-explain",
        group="output",
        example="blocks.0.*",
        metavar="GLOB",
        help="say where the loss of the SAEs whose id matches comes from: predictions, positions, latents (repeatable)",
        repeatable=True,
    ),
    OptionSpec(
        flag="--sae-train-context",
        group="advanced",
        example="128",
        metavar="N",
        help="tokens of the training context of SAEs whose configuration does not say it",
    ),
    OptionSpec(
        flag="--sae-device",
        group="advanced",
        example="auto",
        choices=DEVICES,
        metavar="D",
        default="auto",
        help=f"where to compute: {', '.join(DEVICES)}",
    ),
    OptionSpec(
        flag="--sae-dtype",
        group="advanced",
        example="float32",
        choices=DTYPES,
        metavar="T",
        default="float32",
        help=f"dtype of the language model: {', '.join(DTYPES)}; SAEs and losses are float32",
    ),
    OptionSpec(
        flag="--sae-batch-tokens",
        group="advanced",
        example="4096",
        metavar="N",
        default="4096",
        help="at most N tokens per forward pass",
    ),
    OptionSpec(
        flag="--sae-memory",
        group="advanced",
        example="8",
        metavar="GIB",
        help="GiB for the weights of SAEs; more than fits is measured in groups; default: half of the free memory",
    ),
    OptionSpec(
        flag="--sae-special-tokens",
        group="advanced",
        example="keep,auto",
        metavar="RULE",
        default="keep,auto",
        help="keep: the SAE leaves BOS and other special tokens as they are, and they are not scored; replace: "
        "it replaces them, and they are scored. After a comma: auto (BOS before every sequence if the SAE "
        "was trained so), bos (always) or no-bos (never)",
    ),
    OptionSpec(
        flag="--sae-seed",
        group="advanced",
        example="0",
        metavar="N",
        default="0",
        help="seed of the order of documents, passages and queries",
    ),
    OptionSpec(
        flag="--sae-allow-pickle",
        group="advanced",
        metavar="",
        help="accept weights in pickles and .npz files; only tensors are read, no code is run",
        is_switch=True,
    ),
)

REMOVED = {"--sae-record": "--sae-out", "--sae-report": "--sae-out"}
"""Options of earlier versions, each with the one to use instead."""


def bad_value(key: str, got: str, expected: str) -> errors.UsageError:
    """The error for the option with ini key *key*, which was given *got*."""
    spec = next(spec for spec in SPECS if spec.key == key)
    return errors.bad_option(spec.flag, got, expected, spec.example)


def defaults() -> dict[str, str | list[str] | None]:  # a dict: the border to pytest's string-keyed options
    """What `options.parse` gets when nothing was asked."""
    return {spec.key: spec.default for spec in SPECS}


def gather(given: Callable[[str], object], ini: Callable[[str], object]) -> dict[str, str | list[str] | None]:
    """
    Command line over ini file over default, for every option; *given* and *ini* look one key up.

    Raises:
        UsageError: an option was given an empty value.
    """
    raw = defaults()
    for spec in SPECS:
        if given(spec.key) == "":  # an unset variable of a script: what was meant is not known
            raise bad_value(spec.key, "", "a value")
        for found in (ini(spec.key), given(spec.key)):
            if spec.is_switch:
                raw[spec.key] = "yes" if found is True else raw[spec.key]
            elif isinstance(found, list):
                raw[spec.key] = [str(entry) for entry in found] or raw[spec.key]
            elif found:
                raw[spec.key] = str(found)
    return raw
