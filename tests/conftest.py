"""Small language models and SAEs, made once per session; see tests/tiny.py."""

import pytest


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
