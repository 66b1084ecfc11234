"""The service: one BentoML service around one bundle and one event store."""
