"""The peer `ray`."""
