"""Ratings as files that others read: shards, exports, and the card of a repository."""
