"""What `sae-checks` can do: a file per command with `add` and `run`, and `history` with four."""
