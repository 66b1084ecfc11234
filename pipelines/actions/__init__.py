"""Whatever changes the outside: register, promote, roll back. Each may be repeated; none is a DVC stage."""
