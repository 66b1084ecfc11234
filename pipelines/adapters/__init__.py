"""The only doors outwards: table engine, registry, packaging, encoder process."""
