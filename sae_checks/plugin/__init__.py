"""
The pytest plugin: its hooks and fixtures. It prints and collects nothing when no release is given.

pytest imports this package in every run of the environment. Until a check needs a measurement, it imports only the
standard library, pytest, and modules of this project that do the same.
"""

from sae_checks.plugin.collection import (
    pytest_collect_file,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_generate_tests,
    pytest_ignore_collect,
    pytest_pycollect_makemodule,
)
from sae_checks.plugin.configure import pytest_addoption, pytest_configure, pytest_report_header
from sae_checks.plugin.fixtures import sae_judgement, sae_speed
from sae_checks.plugin.misspelt import pytest_load_initial_conftests
from sae_checks.plugin.xdist import (
    pytest_configure_node,
    pytest_xdist_make_scheduler,
    pytest_xdist_node_collection_finished,
)

__all__ = [
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_generate_tests",
    "pytest_ignore_collect",
    "pytest_load_initial_conftests",
    "pytest_pycollect_makemodule",
    "pytest_report_header",
    "pytest_xdist_make_scheduler",
    "pytest_xdist_node_collection_finished",
    "sae_judgement",
    "sae_speed",
]
