"""Tiny models of every family that transformers can build, derived from their configs' own fields."""

from benchmarks.zoo.families import TASKS, Family, families
from benchmarks.zoo.specimen import Specimen, Unbuildable, specimen

__all__ = ["TASKS", "Family", "Specimen", "Unbuildable", "families", "specimen"]
