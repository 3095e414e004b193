"""Bulk writing: when a batch is full, how it is written, and what becomes of what can't be."""
