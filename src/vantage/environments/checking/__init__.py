"""A thorough check of one environment: `check.check_environment` is its door."""
