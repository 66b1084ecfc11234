"""A run of the pipeline beside the checkout: its own worktree, its archive, and the same steps for people and DAGs."""
