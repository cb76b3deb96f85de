"""Audit anonymized faces: who is recognised, linked, inferred or restored, and what is still good.

Import from the modules, in this order: `settings`, `people`, `distances` (arrays only),
`landmarks`, `identity`, `fidelity`, `baselines`, `observe`, `records`, `gather`, `learning`,
`adversary`, `inference`, `reversal`, `matched`, `measures`, `summary`, `tables`, `plots`,
`protocol`. This file imports nothing.
"""
