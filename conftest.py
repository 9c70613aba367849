"""Makes `pytest --sae-release X` work from a bare checkout; installed, the plugin comes by its pytest11 entry point."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; the reason stands in plugin/fixtures.py

pytest_plugins = ["sae_checks.plugin"]
