"""Where measuring runs. One file per place."""
