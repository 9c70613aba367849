"""A frozen language model: a clean pass with captures, and the rest of a pass from a changed activation."""
