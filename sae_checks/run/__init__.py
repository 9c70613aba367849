"""From what was asked to results: settle, measure until decided, judge. Knows no pytest."""
