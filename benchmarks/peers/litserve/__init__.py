"""The peer `litserve`."""
