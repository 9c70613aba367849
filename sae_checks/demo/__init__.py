"""The embedded release: a small language model and its SAEs, made by this project."""
