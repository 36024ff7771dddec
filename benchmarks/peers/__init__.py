"""The servers that digits is measured against. Each runs in an environment of its own."""
