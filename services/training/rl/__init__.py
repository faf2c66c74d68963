"""Reinforcement learning: rewards to advantages, batches to tensors, the loss, the trainer."""
