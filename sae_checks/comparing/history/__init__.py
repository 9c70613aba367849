"""A history keeps the records of runs: list them, compare two, show trends, export for other tools."""
