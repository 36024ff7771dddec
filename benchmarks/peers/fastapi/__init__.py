"""The peer `fastapi`."""
