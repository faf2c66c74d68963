"""verification: judges responses. Never hangs, never guesses; what it cannot judge is unscored, with a reason."""
