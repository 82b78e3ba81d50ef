"""Other ways to the same results, each written from its description; tests hold their results to ours."""
