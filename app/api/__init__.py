"""What all operations share over HTTP."""
