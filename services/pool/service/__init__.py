"""The pool's decisions, by subject. Each public method is one transaction, with hints after its commit."""
