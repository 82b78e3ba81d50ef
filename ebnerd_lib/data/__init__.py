"""Bundles of EBNeRD: their schema, reading, splitting, and what is known of them in numbers."""
