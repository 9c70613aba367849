"""Files of text -> tokens, the positions that are replaced and scored, and a fingerprint. One file per source."""
