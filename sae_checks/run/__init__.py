"""Turns options into results: settles the request, measures until each check is decided, and judges. No pytest."""
