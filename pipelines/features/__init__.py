"""Features: mergeable aggregates declared once, built offline as of an instant, carried on while serving."""
