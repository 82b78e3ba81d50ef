"""From a trained model and the hidden test set to a file that can be sent, and the check of such a file."""
