"""Image files to model input, and images to files."""
