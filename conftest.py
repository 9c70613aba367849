"""Makes `pytest --sae-release X` work from a bare checkout; installed, the plugin comes by its pytest11 entry point."""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; the reason stands in plugin/fixtures.py

if "sae_checks.plugin" not in sys.modules:  # pytest refuses it in a conftest that is not the rootdir's
    pytest_plugins = ["sae_checks.plugin"]
