"""surgeon.repair."""
