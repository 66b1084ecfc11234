"""Queries: from what somebody typed to what members and the fusion read."""
