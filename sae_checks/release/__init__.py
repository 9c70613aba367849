"""A name, a Hub repository or a folder -> pinned SAEs, from their configurations alone."""
