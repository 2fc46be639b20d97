"""The only file access: checkpoints in and out, texts, plans and other documents."""

from surgeon.io.checkpoint import Checkpoint
from surgeon.io.disk_source import DiskSource
from surgeon.io.documents import check_file, read_document, write_document, write_page
from surgeon.io.loading import check_finite
from surgeon.io.modeling_file import has_own_code
from surgeon.io.plan_files import read_plan, write_plan
from surgeon.io.publish import check_output, check_space, publishing
from surgeon.io.texts import TextFile, read_texts
from surgeon.io.writer import bytes_needed, write_checkpoint

__all__ = [
    "Checkpoint",
    "DiskSource",
    "TextFile",
    "bytes_needed",
    "check_finite",
    "check_file",
    "check_output",
    "check_space",
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
