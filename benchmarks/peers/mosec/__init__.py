"""The peer `mosec`."""
