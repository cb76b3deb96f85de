"""The commands, one file per family; a thin shell over the package, imported by `__main__` only.

A family has `add_commands(commands)`, which names its commands and their arguments, and one private
function `_name(options, tools)` per command: check what costs nothing, import what is heavy, call
the package, write everything or nothing, say what to do next. What several families need stands in
`shell` (reading the command line) and `output` (writing).
"""
