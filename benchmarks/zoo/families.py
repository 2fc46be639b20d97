"""Every model type that transformers' auto classes know, task by task. Not here: how small it gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

__all__ = ["TASKS", "Family", "Task", "families"]

Task = Literal["causal", "masked", "seq2seq", "image_text"]
TASKS: tuple[Task, ...] = get_args(Task)

_MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "image_text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
}
_AUTO_CLASSES = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "image_text": transformers.AutoModelForImageTextToText,
}


@dataclass(frozen=True, slots=True)
class Family:
    """One entry of one auto mapping: a model type, and the class that it names for the task."""

    task: Task
    name: str
    class_name: str

    @property
    def key(self) -> str:
        """``task/name``, unique."""
        return f"{self.task}/{self.name}"

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        """The config class of the model type."""
        return CONFIG_MAPPING[self.name]

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The class that is built."""
        return getattr(transformers, self.class_name)

    @property
    def auto_class(self) -> type:
        """The stock auto class of the task, which a user loads with."""
        return _AUTO_CLASSES[self.task]


def families(tasks: Iterable[Task] = TASKS) -> tuple[Family, ...]:
    """All entries of the tasks' mappings in the installed transformers, in their order."""
    found = []
    for task in tasks:
        for name, classes in getattr(modeling_auto, _MAPPINGS[task]).items():
            found.append(Family(task, name, classes if isinstance(classes, str) else classes[0]))
    return tuple(found)
