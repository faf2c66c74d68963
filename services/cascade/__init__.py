"""cascade: decides what happens next. It writes orders, snapshots and runs; nobody else does."""
