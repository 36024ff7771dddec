"""The peer `bentoml`."""
