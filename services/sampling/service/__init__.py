"""Decisions of the sampling worker: one drain (`drain`), its groups, its window and its patience."""
