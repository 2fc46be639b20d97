"""surgeon.api."""
