"""Training with Lightning: batches of slates, the trainer, and model files."""
