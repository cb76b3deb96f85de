"""Privacy Dial's core: photos, models, privacy accounting, anonymization.

Import from the modules, in the order of the design: `schema`, `errors`, `faces`, `recognition`,
`diffusion`, `privacy`, `noise`, `backends`, `anonymize`, `calibrate`, `report`. This file imports
nothing, so that the command line and the weak baselines start without torch.
"""
