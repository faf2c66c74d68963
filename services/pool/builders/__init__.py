"""Named recipes that build snapshots: pure functions from scored answers, parameters and a seed to rows."""
