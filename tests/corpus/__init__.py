"""Bad input made by hand. What the service must say to it is written in the tests."""
