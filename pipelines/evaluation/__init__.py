"""Offline evaluation: metrics, intervals, the protocol on the holdout, and the report for people."""
