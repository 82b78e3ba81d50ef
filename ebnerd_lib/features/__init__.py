"""Causal features of candidates: a registry by information tier and the streaming kernels that compute them."""
