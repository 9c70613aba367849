"""What takes more than one splice to see, on a few sequences: one room per study, `run` drives them together."""
