"""A frozen language model: a clean pass with captures, resumed from edited activations; one module per backend."""
