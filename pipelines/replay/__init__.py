"""Play a period of real purchases against the service: ask as the customers, post what they bought, measure."""
