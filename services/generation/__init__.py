"""Generation: which policies exist, which engine serves them, and sampling from them."""
