"""How good a checkpoint is, under named protocols."""
