"""Measurements that the project owns: which families can be operated on, and how fast."""
