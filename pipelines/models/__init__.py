"""Base models: one kind a file, no file imports another."""
