"""--sae-clean-cache: the same results to the bit without, with an empty and with a full cache, also under xdist."""

import re
import shutil

import pytest
from test_xdist import STAND_IN
from tiny_release import D_MODEL, HOOKS, copy_saes, identity_weights, write_sae, write_zero_sae

pytest_plugins = ["pytester"]

KEY = "ce_loss or lambada"
STUDIES = "--sae-study-sequences=6"


@pytest.fixture(scope="module")
def saes(tmp_path_factory, tiny):
    """SAEs that are good, worse and nothing, so that some leave early; one of a hook that computes what it shows."""
    folder = copy_saes(tiny, tmp_path_factory.mktemp("kept") / "saes")
    shutil.rmtree(folder / HOOKS[1])
    write_sae(folder / HOOKS[1], HOOKS[1], weights={"W_dec": 0.9 * identity_weights(D_MODEL)["W_dec"]})
    write_sae(folder / "mid", "blocks.0.hook_resid_mid", weights={"W_dec": 0.8 * identity_weights(D_MODEL)["W_dec"]})
    write_zero_sae(folder / "zero", HOOKS[1])
    return folder


@pytest.fixture
def computed(tiny, monkeypatch):
    """The shapes of the clean passes that the model ran, but for those of eight tokens that it is looked at with."""
    from sae_checks.model.hugging_face import HuggingFaceModel

    found, clean = [], HuggingFaceModel.clean

    def counted(self, tokens, hooks):
        found.append(tuple(tokens.shape))
        return clean(self, tokens, hooks)

    monkeypatch.setattr(HuggingFaceModel, "clean", counted)
    return found


def n_files(folder):
    assert not list(folder.rglob("*.part"))
    return len(list(folder.rglob("*.safetensors")))


def test_results_are_the_same_to_the_bit(gate, saes, computed, pytester):
    """Every value of every result; the second run with a cache runs the model for its fingerprint alone."""
    folder = pytester.path / "passes"
    plain = gate(STUDIES, saes=saes).record  # read now: the next run replaces it
    n_plain = len(computed)
    runs = []
    for _ in range(2):
        computed.clear()
        runs.append((gate(STUDIES, f"--sae-clean-cache={folder}", saes=saes).record, len(computed), n_files(folder)))
    (cold, n_cold, n_kept), (warm, n_warm, n_kept_then) = runs
    assert len({result.outcome for result in plain.results}) >= 3
    assert plain.results == cold.results == warm.results
    assert n_plain > 4
    assert 1 + n_kept <= n_cold
    assert n_warm == 1  # the probe
    assert n_kept == n_kept_then
    assert dict(warm.options)["clean_cache"] == str(folder)
    assert dict(plain.options)["clean_cache"] is None


def test_other_questions_of_the_same_text(gate, saes, computed, pytester):
    """What one SAE's run has kept serves, with what others add, the run of all; and theirs serves each of them."""
    asked = [f"--sae-clean-cache={pytester.path / 'passes'}", STUDIES]
    one = gate(f"--sae-id={HOOKS[0]}", STUDIES, saes=saes).record
    everyone = gate(STUDIES, saes=saes).record
    assert gate(f"--sae-id={HOOKS[0]}", *asked, saes=saes).record.results == one.results
    for _ in range(2):
        assert gate(*asked, saes=saes).record.results == everyone.results
    assert gate(f"--sae-id={HOOKS[0]}", *asked, saes=saes).record.results == one.results


def test_a_damaged_cache_changes_nothing(gate, saes, computed, pytester):
    """A bit in every file of it: all is computed again, and kept."""
    folder = pytester.path / "passes"
    asked = f"--sae-clean-cache={folder}"
    before = gate(asked, saes=saes).record
    for path in folder.rglob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-9] ^= 4
        path.write_bytes(content)
    computed.clear()
    assert gate(asked, saes=saes).record.results == before.results
    assert len(computed) == 1 + n_files(folder)
    computed.clear()
    assert gate(asked, saes=saes).record.results == before.results
    assert len(computed) == 1


def test_two_workers_share_it(gate, saes, pytester):
    """`-n 2`: both write the same files, with other hooks each; what they find is what they would have computed."""
    pytester.makeconftest("import sys\nsys.path.insert(0, 'stand_in')\n")
    pytester.mkdir("stand_in").joinpath("sae_lens.py").write_text(STAND_IN)
    folder = pytester.path / "passes"
    plain = gate("-k", KEY, saes=saes).record
    kept = [gate("-n2", "-k", KEY, f"--sae-clean-cache={folder}", saes=saes).record for _ in range(2)]
    assert (pytester.path / "stand-in-was-used").exists()
    assert kept[0].results == kept[1].results
    assert kept[0].results == plain.results
    assert n_files(folder) > 3


def test_a_folder_that_cannot_be_written_is_said_and_nothing_else(gate, saes, pytester):
    """The run goes on, also where every warning is an error."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    folder = pytester.path / "passes"
    folder.mkdir()
    plain = gate("-k", "ce_loss", f"--sae-clean-cache={folder}", saes=saes)
    of_plain = plain.record.results
    (of_model,) = folder.iterdir()
    shutil.rmtree(of_model)
    of_model.write_text("")
    taken = gate("-k", "ce_loss", f"--sae-clean-cache={folder}", saes=saes)
    assert taken.record.results == of_plain
    assert taken.exit_code == plain.exit_code
    assert len(re.findall(r"no more clean passes are kept in", taken.text)) == 1, taken.text
