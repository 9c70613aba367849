"""The shipped checks. `pytest --sae-release X` runs them; `pytest --pyargs sae_checks.gate` names them."""
