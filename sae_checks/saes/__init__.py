"""SAE weights -> reconstructions, and how one takes the place of an activation."""
