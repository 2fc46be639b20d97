"""surgeon.calibrate."""
