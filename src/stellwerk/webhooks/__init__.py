"""Tells other programs what happens in the gateway: signed, durable, at least once."""
