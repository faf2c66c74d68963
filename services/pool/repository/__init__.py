"""Every query of the pool, by subject. Functions take an open transaction and never commit."""
