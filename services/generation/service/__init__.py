"""Generation's decisions, by subject: policies, weights, residency on the engines, sampling, chat."""
