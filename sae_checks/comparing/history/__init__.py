"""Runs of a release line over months: kept, listed, compared, drawn, and handed to other tools."""
