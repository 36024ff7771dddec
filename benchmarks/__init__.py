"""What the performance figures come from: servers, load, records and their summary."""
