"""surgeon.io."""
