"""Train generative models of small images and export them as checkpoints."""
