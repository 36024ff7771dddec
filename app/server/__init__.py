"""The process that serves the app: uvicorn's configuration, its HTTP protocol with bounds, start and shutdown."""
