"""Trajectories: attempts and verifications as text with segments, and how training trajectories are built from them."""
