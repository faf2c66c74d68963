"""Queries of the lists, by subject: each reads a page along an index and no further, however large the table is."""
