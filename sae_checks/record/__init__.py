"""One run as strict JSON, both ways, and the merging of shards."""
