"""What other tools get: the structure that they document, and the numbers of the record."""

import builtins
import json
import math
import struct
from dataclasses import replace

import builders
import histories
import jsonschema
import pytest
from hypothesis import given, settings
from strategies import records

from sae_checks import errors
from sae_checks.comparing.history import export

# As their documents have it: github-action-benchmark's examples/custom, bencher.dev's reference of BMF.
GITHUB_ACTION_BENCHMARK = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "unit": {"type": "string"},
            "value": {"type": "number"},
            "range": {"type": "string"},
            "extra": {"type": "string"},
        },
        "required": ["name", "unit", "value"],
        "additionalProperties": False,
    },
}
BENCHER = {
    "type": "object",
    "patternProperties": {
        ".+": {
            "type": "object",
            "patternProperties": {
                ".+": {
                    "type": "object",
                    "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
                    "required": ["value"],
                    "additionalProperties": False,
                }
            },
        }
    },
    "additionalProperties": False,
}


def explained():
    """A measure of which more is better."""
    return replace(
        histories.ce_loss(),
        check="sparsity",
        limit=builders.limit("sparsity", "explained_variance", "min", 0.9),
        estimates=(builders.estimate("explained_variance", 0.97),),
    )


RUN = histories.run(histories.ce_loss(), explained(), histories.without_values("cbt"))


@settings(deadline=None)
@given(records())
def test_every_record_has_the_structure_that_is_documented(of):
    """Strict JSON by the tools' own documents, whatever the names are."""
    for better in ("smaller", "bigger"):
        rows = json.loads(json.dumps(export.github_action_benchmark(of, better), allow_nan=False))
        jsonschema.validate(rows, GITHUB_ACTION_BENCHMARK)
    document = json.loads(json.dumps(export.bencher(of), allow_nan=False))
    jsonschema.validate(document, BENCHER)
    for measures in document.values():
        for measure, found in measures.items():
            assert len(measure) <= 64  # Bencher's longest name of a measure
            assert found["lower_value"] <= found["value"] <= found["upper_value"]


def test_each_way_has_its_own_measures():
    """A loss where less is better, an explained variance where more is; what was not measured is in neither."""
    (loss,) = export.github_action_benchmark(RUN, "smaller")
    (variance,) = export.github_action_benchmark(RUN, "bigger")
    assert loss["name"] == "demo / a / ce_loss / ce_increase"
    assert (loss["unit"], loss["value"]) == ("nats/token", RUN.results[0].estimates[1].value)
    assert loss["extra"] == "passed, n = 64, limit ce_increase <= 0.3 nats/token"
    assert (variance["name"], variance["value"]) == ("demo / a / sparsity / explained_variance", 0.97)


def test_what_has_two_bad_sides_is_in_neither():
    """Of a range neither less nor more is better."""
    ranged = replace(explained(), limit=replace(explained().limit, kind="max", value=1.0, floor=0.9))
    assert export.better_of(ranged) is None
    of = histories.run(ranged)
    assert export.github_action_benchmark(of, "smaller") == export.github_action_benchmark(of, "bigger") == []


def test_bencher_has_every_measure_with_its_bounds():
    """A benchmark per SAE and check."""
    document = export.bencher(RUN)
    assert set(document) == {"demo / a / ce_loss", "demo / a / sparsity"}
    assert document["demo / a / sparsity"] == {
        "explained_variance": {"value": 0.97, "lower_value": 0.96, "upper_value": 0.98}
    }
    assert set(document["demo / a / ce_loss"]) == {"kl", "ce_increase"}


def test_without_wandb_the_message_says_what_to_install(tmp_path, monkeypatch):
    """It is imported only here."""
    real = builtins.__import__

    def without(name, *rest):
        if name == "wandb":
            raise ImportError("No module named 'wandb'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(errors.UsageError, match="needs the package wandb"):
        export.wandb_offline(RUN, tmp_path, "p")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning", "ignore::UserWarning")
def test_wandb_keeps_every_number_offline(tmp_path, monkeypatch):
    """Without a network and without an account: what W&B itself reads back is what was measured."""
    pytest.importorskip("wandb")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "online")  # offline is asked for by name
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    folder = export.wandb_offline(RUN, tmp_path, "a-project")
    assert folder.parent == tmp_path / "wandb"
    assert folder.name.startswith("offline-run-")
    (written,) = folder.glob("*.wandb")
    config, summary = read_back(written)
    assert config["release"] == "demo"
    assert config["software"] == {"sae-checks": "1.0", "torch": "2.13.0"}
    expected = export.scalars(RUN)
    assert {key: summary.get(key) for key in expected} == expected
    assert math.isclose(summary["a/ce_loss/ce_increase"], RUN.results[0].estimates[1].value)
    assert (summary["a/ce_loss/outcome"], summary["a/cbt/outcome"]) == ("passed", "not_measured")


def read_back(path):
    """Configuration and summary of an offline run, by W&B's own messages."""
    from wandb.proto import wandb_internal_pb2

    config, summary = {}, {}
    for data in logged(path.read_bytes()):
        message = wandb_internal_pb2.Record()
        message.ParseFromString(data)
        if message.HasField("run"):
            config |= {item.key: json.loads(item.value_json) for item in message.run.config.update}
        if message.HasField("summary"):
            summary |= {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in message.summary.update
            }
    return config, summary


def logged(data):
    """The entries of LevelDB's log format, which an offline run is behind a head of 7 bytes: blocks of 32 KiB."""
    at, whole = 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _crc, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield whole
            whole = b""
