"""The peer `fastapi-batched`."""
