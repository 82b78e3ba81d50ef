"""Bundles of EBNeRD: their schema, reading, splitting, and the sample generator."""
