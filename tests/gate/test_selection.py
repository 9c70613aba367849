"""Which tests are collected: none of the gate unless a release is asked for, and then the gate alone."""

import json
import os

import pytest
from gate_run import properties_of, run_apart
from tiny_release import CHECKS, HOOKS, N_CELLS, N_CHECKS, copy_saes, write_sae, write_zero_sae

from sae_checks.plugin.state import GATE

pytest_plugins = ["pytester"]

NO_NUMPY = ("-p", "no:jaxtyping")  # which imports it

ALL_IDS = {f"sae_checks/gate/test_{check}.py::test_{check}[{hook}]" for check in CHECKS for hook in HOOKS}
ONE_CHECK = "test_ce_loss.py::test_ce_loss[blocks.0.hook_resid_pre]"
OWN_TEST = "def test_own():\n    assert True\n"


def listed(run):
    """The node ids that `--collect-only -q` printed."""
    return {line for line in run.lines if "::" in line}


def test_quiet_without_a_release(pytester, gate):
    """Without options a user's own test runs and nothing speaks of the gate."""
    pytester.makepyfile(test_own=OWN_TEST)
    run = gate(options=[])
    assert (run.exit_code, run.counts) == (0, {"passed": 1})
    assert "sae-checks:" not in run.text
    assert "sae_checks/gate" not in run.text


def test_an_empty_folder_stays_empty(gate):
    """Without options there is nothing to collect where the user has no tests."""
    run = gate(options=[])
    assert run.exit_code == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize(
    "own",
    [
        pytest.param(
            "import pytest\n@pytest.mark.parametrize('sae_id', ['a', 'b'])\ndef test_own(sae_id):\n    assert sae_id\n",
            id="parametrized",
        ),
        pytest.param(
            "import pytest\n@pytest.fixture(params=['a', 'b'])\ndef sae_id(request):\n    return request.param\n"
            "def test_own(sae_id):\n    assert sae_id\n",
            id="fixture",
        ),
    ],
)
@pytest.mark.parametrize("with_release", [False, True])
def test_sae_id_of_the_user_stays_the_users(pytester, gate, own, with_release):
    """A user's own argument `sae_id` means what the user says, with and without a release."""
    pytester.makepyfile(test_own=own)
    run = gate("test_own.py", "--pyargs", "sae_checks.gate") if with_release else gate(options=[])
    assert (run.exit_code, run.counts) == (0, {"passed": 2 + N_CELLS * with_release}), run.text


def test_release_alone_collects_the_gate_alone(pytester, gate):
    """With a release and no path the user's own tests are not collected, testpaths or not."""
    pytester.makeini("[pytest]\ntestpaths = tests\n")
    pytester.mkdir("tests").joinpath("test_own.py").write_text("def test_own():\n    assert False\n")
    pytester.makepyfile(test_beside="def test_beside():\n    assert False\n")
    run = gate()
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS}), run.text


def test_own_path_and_the_gate_by_name(pytester, gate):
    """A run judges the release and the user's own tests if both are named."""
    pytester.makepyfile(test_own=OWN_TEST)
    run = gate("test_own.py", "--pyargs", "sae_checks.gate")
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS + 1}), run.text


def test_gate_by_name(gate):
    """`--pyargs sae_checks.gate` names the checks without their place."""
    run = gate("--pyargs", "sae_checks.gate")
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS}), run.text


def test_gate_by_name_without_a_release(gate):
    """The checks without a release are a usage error in a sentence, neither green nor a traceback."""
    run = gate("--pyargs", "sae_checks.gate", options=[])
    assert run.exit_code not in (0, 5)
    assert "no release is given" in run.text
    assert "_hookexec" not in run.text, "the message, not pytest's insides"
    assert "INTERNALERROR" not in run.text


def test_own_path_alone_is_not_a_pass(pytester, gate):
    """A path that leaves no check of the release is exit code 4, however green the user's tests are."""
    pytester.makepyfile(test_own=OWN_TEST)
    run = gate("test_own.py")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "no check of the release ran: this is not a pass" in run.text


def test_a_path_in_addopts_is_not_a_pass(pytester, gate):
    """`addopts = tests` unselects the gate: exit code 4, with a hint at addopts."""
    pytester.makeini("[pytest]\naddopts = tests\n")
    pytester.mkdir("tests").joinpath("test_own.py").write_text(OWN_TEST)
    run = gate()
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "addopts" in run.text


def test_k_by_check(gate):
    """-k with the name of a check runs it for every SAE; the record knows what was not selected."""
    run = gate("-k", "ce_loss")
    assert (run.exit_code, run.counts) == (0, {"passed": 3, "deselected": N_CELLS - 3}), run.text
    assert run.outcomes == {(h, c): "passed" if c == "ce_loss" else "not_measured" for h in HOOKS for c in CHECKS}
    assert run.results[HOOKS[0], "lambada"].reason.startswith("not selected")


def test_k_by_sae(gate):
    """-k with a part of an SAE's id runs its checks."""
    run = gate("-k", "resid_post")
    assert (run.exit_code, run.counts["passed"]) == (0, N_CHECKS), run.text


@pytest.mark.parametrize(
    ("keyword", "attempt"),
    [
        ("celoss", "-k ce_loss"),
        ("not sparsity and lambad_a", "-k lambada"),
        ("blocks.1.hook_resid_prae", "--sae-id=blocks.1.hook_resid_pre"),
        ("zzz", "pytest --sae-release=NAME without paths, -k"),
    ],
)
def test_k_that_matches_nothing(gate, keyword, attempt):
    """-k without a match is not a pass; the message has what there is, and what is nearest."""
    run = gate("-k", keyword)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "no check of the release ran" in run.text
    assert f"expected: one of the checks {', '.join(CHECKS)}; of {', '.join(sorted(HOOKS))}" in run.text
    assert f"got:      none, from -k {keyword!r}" in run.text
    assert f"try:      {attempt}" in run.text


def test_m_with_the_marker(gate):
    """-m sae_check selects the gate."""
    run = gate("-m", "sae_check", "--strict-markers")
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS}), run.text


def test_m_without_the_marker(gate):
    """-m "not sae_check" leaves nothing, and that is not a pass."""
    run = gate("-m", "not sae_check")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR


def test_x_stops_at_the_first_failure(tmp_path, gate):
    """-x stops; the record names what was not reached."""
    write_zero_sae(tmp_path / "saes" / "a", HOOKS[0])
    write_sae(tmp_path / "saes" / "b", HOOKS[2])
    run = gate("-x", saes=tmp_path / "saes")
    assert (run.exit_code, run.counts) == (1, {"failed": 1}), run.text
    assert run.outcomes["a", "cbt"] == "failed"
    assert run.results["b", "sparsity"].reason == "not reached"


def test_lf_runs_what_failed(tmp_path, gate):
    """--lf runs the failed checks again and nothing else."""
    saes = tmp_path / "saes"
    write_zero_sae(saes / "a", HOOKS[1])
    write_sae(saes / "b", HOOKS[2])
    first = gate(saes=saes)
    failed = {cell for cell, outcome in first.outcomes.items() if outcome in ("failed", "inconclusive")}
    second = gate("--lf", saes=saes)
    assert failed
    assert (second.exit_code, second.counts["failed"]) == (1, len(failed)), second.text
    assert {cell for cell, outcome in second.outcomes.items() if outcome != "not_measured"} == failed


def test_deselect_by_stable_node_id(gate):
    """--deselect takes the stable node id."""
    run = gate("--deselect", f"sae_checks/gate/{ONE_CHECK}")
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS - 1, "deselected": 1}), run.text
    assert run.outcomes[HOOKS[0], "ce_loss"] == "not_measured"


@pytest.mark.parametrize(
    "place", [("--pyargs", f"sae_checks.gate.{ONE_CHECK.replace('.py', '', 1)}"), (f"{GATE}/{ONE_CHECK}",)]
)
def test_one_check(gate, place):
    """One check of one SAE, by module name or by path."""
    run = gate(*place)
    assert (run.exit_code, run.counts) == (0, {"passed": 1}), run.text
    assert run.outcomes[HOOKS[0], "ce_loss"] == "passed"


def test_one_check_as_pytest_printed_it(gate):
    """A node id copied from pytest's summary selects the check, from any folder."""
    run = gate(f"sae_checks/gate/{ONE_CHECK}")
    assert (run.exit_code, run.counts) == (0, {"passed": 1}), run.text


@pytest.mark.parametrize(
    ("place", "extra"),
    [
        (".", ("--rootdir=/",)),
        (".", ("--pyargs", "sae_checks.gate")),
        (".", (str(GATE),)),
        ("deep/er", ()),
        ("deep/er", ("--pyargs", "sae_checks.gate")),
    ],
)
def test_node_ids_are_the_same_everywhere(pytester, gate, place, extra):
    """Node ids are keys of histories: the same from every folder, rootdir and way to name the gate."""
    folder = pytester.path / place
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # pytester goes back
    assert listed(gate("--collect-only", "-q", *extra)) == ALL_IDS


def test_junit_names_are_the_same_everywhere(gate):
    """JUnit's classname and name follow from the stable node id."""
    case = gate("-k", "ce_loss", "--rootdir=/").junit[HOOKS[0], "ce_loss"]
    assert (case.get("classname"), case.get("name")) == ("sae_checks.gate.test_ce_loss", f"test_ce_loss[{HOOKS[0]}]")
    assert properties_of(case)["sae_id"] == HOOKS[0]


def test_collect_only_writes_no_record(gate):
    """--collect-only is no run: exit code 0 and no record."""
    run = gate("--collect-only")
    assert (run.exit_code, run.record_path.exists()) == (0, False)


def test_collect_only_imports_nothing_heavy(tmp_path, tiny):
    """Listing the checks needs no torch; by the entry point, in a folder that knows nothing of the project."""
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    print('heavy:', sorted({'torch', 'sae_lens', 'transformers', 'numpy', 'scipy'} & set(sys.modules)))\n"
    )
    run = run_apart(tmp_path, *tiny.args(), "--collect-only", "-q", "--benchmark-skip", *NO_NUMPY)
    assert run.exit_code == 0, run.text
    assert listed(run) == ALL_IDS
    assert "heavy: []" in run.text


@pytest.mark.parametrize(
    "settings",
    [
        ("python_files = check_*.py", "python_functions = check_*", "python_classes = Check", "filterwarnings = error"),
        ("python_files = test_*.py *_test.py spec_*.py", "norecursedirs = gate sae_checks", "xfail_strict = true"),
        ("strict = true", "addopts = -p sae_checks.plugin -p no:cacheprovider -s"),
        ("consider_namespace_packages = true", "addopts = --strict-markers --strict-config --import-mode=importlib"),
        ("addopts = --doctest-modules --tb=no -q --no-header --no-summary",),
        ("addopts = -p no:terminal",),
    ],
)
def test_settings_of_the_user_leave_the_gate_whole(pytester, gate, settings):
    """Whatever the user's own tests are configured to be, the gate is collected and judged."""
    pytester.makeini("\n".join(["[pytest]", *settings]))
    run = gate()
    assert run.exit_code == 0, run.text
    assert set(run.outcomes.values()) == {"passed"}


def test_conftest_of_the_user_is_read(pytester, gate):
    """The user's root conftest is imported although no path of the user is collected."""
    pytester.makeconftest("def pytest_report_header(config):\n    return 'header of the user'\n")
    run = gate("-k", "sparsity")
    assert (run.exit_code, "header of the user" in run.text) == (0, True)


def test_ini_keys(pytester, tiny, gate):
    """Every option may stand in the user's ini file, so that plain `pytest` judges the release."""
    keys = {"release": tiny.saes, "model": tiny.model, "corpus": tiny.corpus, "lambada": tiny.lambada, "cbt": tiny.cbt}
    keys["study_sequences"] = 0
    lines = [*(f"sae_{key} = {value}" for key, value in keys.items()), "sae_id = *pre", "sae_out = from_ini"]
    pytester.makeini("\n".join(["[pytest]", *lines]))
    run = gate("--strict-config", options=[])
    assert (run.exit_code, run.counts) == (0, {"passed": 2 * N_CHECKS}), run.text
    assert json.loads((pytester.path / "from_ini/record.json").read_text())["release"]["sae_ids"] == [
        HOOKS[0],
        HOOKS[1],
    ]


def test_command_line_before_ini(pytester, gate):
    """What is said on the command line holds against the ini file."""
    pytester.makeini("[pytest]\nsae_id = *pre\nsae_sequences = 17\n")
    run = gate("--sae-id=*post", "--sae-sequences=18")
    assert {sae_id for sae_id, _ in run.results} == {HOOKS[2]}
    assert dict(run.record.options)["n_sequences"] == 18


def test_sae_id_patterns(gate):
    """--sae-id may be given more than once; an SAE that matches any pattern is judged."""
    run = gate("--sae-id=*0*", "--sae-id=*post", "-k", "sparsity")
    assert {sae_id for sae_id, _ in run.results} == {HOOKS[0], HOOKS[2]}


def test_release_of_one_sae(tmp_path, tiny, gate):
    """The folder of a single SAE is a release of one."""
    saes = copy_saes(tiny, tmp_path / "saes")
    run = gate("-k", "sparsity", saes=saes / HOOKS[1])
    assert (run.exit_code, set(run.outcomes)) == (0, {(HOOKS[1], check) for check in CHECKS})


def test_speed_is_not_collected_by_itself(gate):
    """Time is a report, not a check: without --sae-out and a benchmark option there is no test_speed."""
    assert not any("test_speed" in nodeid for nodeid in listed(gate("--collect-only", "-q")))


@pytest.mark.parametrize(
    "args",
    [
        ("--benchmark-json=times.json",),
        ("--benchmark-only",),
        ("--benchmark-autosave",),
        ("--benchmark-save=times",),
        (f"{GATE}/test_speed.py",),
        ("--pyargs", "sae_checks.gate.test_speed"),
    ],
)
def test_speed_is_collected_when_asked_for(gate, args):
    """A benchmark option, or the file by path or name, collects one test_speed per SAE."""
    found = {nodeid for nodeid in listed(gate("--collect-only", "-q", *args)) if "test_speed" in nodeid}
    assert found == {f"sae_checks/gate/test_speed.py::test_speed[{hook}]" for hook in HOOKS}


def test_own_test_named_like_a_check(pytester, gate):
    """A user's failing test that bears the name of a check and of an SAE does not enter the record."""
    pytester.makepyfile(
        test_ce_loss=f"import pytest\n@pytest.mark.parametrize('sae', ['{HOOKS[0]}'])\n"
        "def test_ce_loss(sae):\n    assert False\n"
    )
    run = gate("test_ce_loss.py", "--pyargs", "sae_checks.gate.test_sparsity")
    assert run.exit_code == 1
    assert run.outcomes[HOOKS[0], "ce_loss"] == "not_measured"
