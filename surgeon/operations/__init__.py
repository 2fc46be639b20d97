"""surgeon.operations."""
