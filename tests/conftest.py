"""Small language models and SAEs, made once per session; see tests/tiny.py."""

import pytest


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
