"""Carrying rows to a remote: rounds, erasure down to the history, compaction, and their health."""
