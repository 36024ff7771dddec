"""`python -m tests.fuzz`: the decoder and the service under random hostile input, for as long as asked."""
