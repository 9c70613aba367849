"""The shipped checks. `pytest --sae-release X` runs them, as does the path `--pyargs sae_checks.gate`."""
