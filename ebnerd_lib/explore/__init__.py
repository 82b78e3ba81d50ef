"""One reader, one moment, one article: what happened, what a model would recommend, and why."""
