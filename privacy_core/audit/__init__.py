"""Audit an unlearned model: utility, forgetting, attacks, a gate for release.

Import from the modules, in this order: `estimates`, `metrics`, `ulira`, `forgetting`, `leak`,
`gate` (arrays only), `relearn`, `shadows`, `measure`, `plots`, `protocol`. This file imports
nothing.
"""
