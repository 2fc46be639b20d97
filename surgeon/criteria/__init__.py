"""surgeon.criteria."""
