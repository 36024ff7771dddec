"""`python -m tests.fuzz`: hostile input without an end, for as long as asked."""
