"""Which tests are slow, and the models and packages that are made once per session."""

import os
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).parent
SLOW = (
    "agreement",
    "corpora",
    "gate",
    "measuring",
    "model",
    "project",
    "saes",
    "commands/test_plan_command.py",
    "release/test_converters.py",
    "release/test_formats.py",
    "release/test_hub_client.py",
    "release/test_hub_release.py",
    "run/test_stopping.py",
)
"""Rooms and modules whose tests import torch or start processes. Elsewhere a single such test is marked itself."""
collect_ignore = ["project"]  # only `pytest tests/project`, which is `make test-project`


def pytest_configure(config):
    if is_quick(config):
        sys.addaudithook(refuse_what_is_slow)


def pytest_ignore_collect(collection_path, config):
    """Do not even import slow modules in a quick run."""
    return True if is_quick(config) and is_slow(collection_path) else None


def pytest_collection_modifyitems(items):
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")


def is_quick(config):
    return config.option.markexpr == "not slow"


def is_slow(path):
    return any(path.is_relative_to(ROOM / place) for place in SLOW)


def refuse_what_is_slow(event, args):
    """Stop a quick run from importing torch, and its tests from starting processes."""
    if event == "import" and args[0] == "torch":
        raise AssertionError("a quick test imports torch: mark it slow, or name its module in tests/conftest.py")
    if event == "subprocess.Popen" and "PYTEST_CURRENT_TEST" in os.environ:
        raise AssertionError(f"a quick test starts a process: mark it slow ({args[0]})")


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_user(tmp_path_factory):
    """Tokens are cached in a folder of this session, in subprocesses too: never in the home of who runs this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_CHECKS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def one_thread():
    """Torch sums on one thread: always in the same order; and on so small a model threads only wait for each other."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def tiny_models():
    """One random model per family, by family name."""
    import tiny

    return {family: tiny.model(family) for family in tiny.FAMILIES}


@pytest.fixture(scope="session")
def hooked_models():
    """The same models in TransformerLens."""
    import tiny

    return {family: tiny.hooked(family) for family in tiny.FAMILIES}


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """(wheel, sdist) of the checkout."""
    import installed

    return installed.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed_python(tmp_path_factory, distributions):
    """A Python that has the wheel, and nothing of the checkout."""
    import installed

    return installed.environment(tmp_path_factory.mktemp("installed") / "venv", distributions[0])
