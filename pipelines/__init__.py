"""Fuseline: the library behind the pipeline. Read top to bottom it is the flow of the data."""
