"""The peer `torchserve`."""
