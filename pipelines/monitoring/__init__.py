"""Is what serves still fit for what happens? Numbers in, checks out; an action gathers the numbers."""
