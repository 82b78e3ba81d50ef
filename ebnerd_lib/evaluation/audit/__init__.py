"""The original notebook's defects, each measured on a bundle beside what is right."""
