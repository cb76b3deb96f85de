"""Update a trained classifier to revised data without retraining it, and prove what was done.

Import from the modules, in this order: `rows`, `training`, `head`, `targets`, `network`, `base`,
one module per method, `run`, `planner`, `certificate`, `ledger`. This file imports nothing.
"""
