"""surgeon.passes."""
