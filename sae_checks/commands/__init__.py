"""What `sae-checks` can do beside listing: one file per command, each with `add` and `run`."""
