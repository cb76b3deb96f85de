"""Audit anonymized faces: who is recognised, linked, inferred or restored, and what is still good.

Import from the modules, in this order: `settings`, `people`, `distances` (arrays only),
`landmarks`, `instruments`, `identity`, `baselines`, `observe`, `records`, `gather`, `learning`,
`adversary`, `order`, `inference`, `fidelity`, `reversal`, `matched`, `attacks`, `measures`,
`summary`, `tables`, `plots`, `protocol`. This file imports nothing.
"""
