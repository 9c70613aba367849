"""The record of one run, its file, and the merging of shards."""
