"""Training code that needs a heavy library; imported only inside the ``fit`` of a kind."""
