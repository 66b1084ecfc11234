"""From a shop's files to the canonical tables: one adapter a file here, the shared work in ``canonical``."""
