"""surgeon.trace."""
