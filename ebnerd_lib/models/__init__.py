"""Models that score a batch of slates: one module a model family, one base class."""
