"""Losses and limits -> readings -> a verdict on each check. Imports no torch."""
