"""Notebooks as stages of a pipeline: parameters, what is stale, running, manifests and reports."""
