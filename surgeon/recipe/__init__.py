"""surgeon.recipe."""
