"""The only file access: checkpoints in and out, texts, plans and other documents.

What is named here is imported when it is first used: copying files needs neither torch nor transformers.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from surgeon.deferred import Deferred

if TYPE_CHECKING:
    from surgeon.io.cache_folder import default_cache
    from surgeon.io.checkpoint import Checkpoint
    from surgeon.io.disk_source import DiskSource
    from surgeon.io.documents import check_file, read_document, write_document, write_page
    from surgeon.io.loading import check_finite
    from surgeon.io.modeling_file import has_own_code
    from surgeon.io.plan_files import read_plan, write_plan
    from surgeon.io.publish import check_output, check_space, publishing
    from surgeon.io.statistics_cache import StatisticsCache
    from surgeon.io.texts import TextFile, read_texts
    from surgeon.io.writer import bytes_needed, write_checkpoint

__all__ = [
    "Checkpoint",
    "DiskSource",
    "StatisticsCache",
    "TextFile",
    "bytes_needed",
    "check_file",
    "check_finite",
    "check_output",
    "check_space",
    "default_cache",
    "has_own_code",
    "publishing",
    "read_document",
    "read_plan",
    "read_texts",
    "write_checkpoint",
    "write_document",
    "write_page",
    "write_plan",
]

_HOMES = {
    "Checkpoint": "checkpoint",
    "DiskSource": "disk_source",
    "StatisticsCache": "statistics_cache",
    "TextFile": "texts",
    "bytes_needed": "writer",
    "check_file": "documents",
    "check_finite": "loading",
    "check_output": "publish",
    "check_space": "publish",
    "default_cache": "cache_folder",
    "has_own_code": "modeling_file",
    "publishing": "publish",
    "read_document": "documents",
    "read_plan": "plan_files",
    "read_texts": "texts",
    "write_checkpoint": "writer",
    "write_document": "documents",
    "write_page": "documents",
    "write_plan": "plan_files",
}
"""The file of this package that each name is in."""

sys.modules[__name__].__class__ = Deferred
