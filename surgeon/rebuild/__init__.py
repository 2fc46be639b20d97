"""surgeon.rebuild."""
