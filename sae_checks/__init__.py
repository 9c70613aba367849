"""A pytest suite that decides whether a sparse autoencoder release is good enough to ship."""

__version__ = "0.1.0.dev0"
