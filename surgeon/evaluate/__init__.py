"""surgeon.evaluate."""
