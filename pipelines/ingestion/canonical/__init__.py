"""What all adapters share: the snapshot, reading files, rules for rows, identity of events, the outputs."""
