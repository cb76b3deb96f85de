"""The durable local log of ratings: one SQLite file, and what it remembers of its copies."""
