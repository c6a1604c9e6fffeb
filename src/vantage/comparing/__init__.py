"""Comparing estimators: many seeds of each, in parallel, with intervals; `vantage.compare`."""
