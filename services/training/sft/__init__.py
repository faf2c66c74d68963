"""Supervised fine-tuning: snapshot rows to tokens and labels, the loss, the trainer."""
