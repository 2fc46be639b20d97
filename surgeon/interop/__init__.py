"""surgeon.interop."""
