"""Simulated raters: what the model expects, what it does not, and rows of theirs in a store."""
