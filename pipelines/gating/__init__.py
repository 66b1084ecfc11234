"""The gate: whether a candidate may become the champion. ``decide`` is pure; the rest brings it its evidence.

============== ===========================================================================
comparison     paired bootstrap and what an interval proves
quality        against baselines, not inferior to a reference, superior to a refit
guardrails     slices, breadth of lists, newest week, served change, data, time, size
verdict        ``(evidence, limits) -> Verdict``
reading        artifacts -> evidence
pinning        the champion of the moment, and which mode that makes
refit          the champion's recipe fitted again at the candidate's t2
scoring        an older or refitted bundle on the candidate's holdout
============== ===========================================================================
"""
