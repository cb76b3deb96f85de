"""The commands, one file per family; a thin shell over the package, imported by `__main__` only.

A family has `add_commands(commands)`, which names its commands and their arguments, and one private
function `_name(options, surroundings)` per command: check, call the package, print data on stdout
and talk on stderr, say what to do next, return the exit code.
"""
