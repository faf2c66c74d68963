"""sampling: executes assignments: question → responses → verdicts → group. Holds nothing that a lease doesn't give back."""
