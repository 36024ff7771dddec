"""Learns generative models of small images and exports them as checkpoints. Knows nothing of serving."""
