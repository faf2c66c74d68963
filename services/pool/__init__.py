"""The QA-pool store: questions, orders, assignments, groups, pass rates, snapshots and batches."""
