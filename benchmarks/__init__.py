"""Published protocols and speed, each one command."""
