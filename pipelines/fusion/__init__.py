"""Fusion: candidates from all members, one list out; interchangeable fusers, one file each."""
