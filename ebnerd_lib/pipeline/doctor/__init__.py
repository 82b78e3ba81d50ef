"""What is there, what is wrong, and what to do about it. Runs where nearly everything is broken."""
