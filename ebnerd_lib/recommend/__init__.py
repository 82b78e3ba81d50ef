"""Recommend articles to users at a moment: who asks, what is live, in what order, how diverse and why."""
