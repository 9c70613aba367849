"""Makes `pytest --sae-release X` work from a bare checkout; installed, the plugin comes by its pytest11 entry point."""

pytest_plugins = ["sae_checks.plugin"]
