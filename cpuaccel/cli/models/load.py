"""Loading the model that the argument MODEL names."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from cpuaccel.cli.models.source import CONFIG_PREFIX, DEMO, Source, find_source
from cpuaccel.cli.models.zoo import GENERATION, ZOO
from cpuaccel.errors import ModelError, did_you_mean, first_line

if TYPE_CHECKING:
    import torch

SEED = 0

TASKS = {
    "question-answering": "AutoModelForQuestionAnswering",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    GENERATION: "AutoModelForCausalLM",
    "image-classification": "AutoModelForImageClassification",
    "automatic-speech-recognition": "AutoModelForCTC",
}
"""The Transformers class that adds the head of each task."""


def load_model(name: str, task: str | None = None) -> "torch.nn.Module":
    """Load or make a model in eval mode; random weights are the same in every run.

    ``name`` is ``demo``, ``smollm2``, ``config:NAME``, a local folder or a hub id; ``task`` a key
    of ``TASKS``, by default the head that the model's config names.
    """
    if task is not None and task not in TASKS:
        close = did_you_mean(task, TASKS)
        raise ModelError(f"unknown task {task!r}{close} Known: {', '.join(TASKS)}")
    if name == DEMO and task is not None:
        raise ModelError(
            f"--task is not supported for demo, an encoder without a head, got {task!r}. Leave it "
            "out"
        )
    if name.startswith(CONFIG_PREFIX):
        return _from_zoo(name.removeprefix(CONFIG_PREFIX), task)
    return _pretrained(name, find_source(name), task)


def import_transformers() -> Any:
    """Import Transformers and silence its progress bars and hints."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError(
            f"the commands need transformers, which can't be imported ({error}). Run: pip install "
            '".[transformers]"'
        ) from error
    # Its output would break our progress bars.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return transformers


def _from_zoo(name: str, task: str | None) -> "torch.nn.Module":
    import torch

    architecture = ZOO.get(name)
    if architecture is None:
        raise ModelError(
            f"unknown model {CONFIG_PREFIX}{name}{did_you_mean(name, ZOO)} Known: {', '.join(ZOO)}"
        )
    transformers = import_transformers()
    task = task or architecture.task
    try:
        config = transformers.AutoConfig.for_model(architecture.model_type, **architecture.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model: torch.nn.Module = getattr(transformers, TASKS[task]).from_config(config)
    except ValueError as error:
        raise ModelError(
            f"transformers {transformers.__version__} has no {task} for {CONFIG_PREFIX}{name}: "
            f"{first_line(error)}. Choose another task"
        ) from error
    return model.eval()


def _pretrained(name: str, source: Source, task: str | None) -> "torch.nn.Module":
    import torch

    transformers = import_transformers()
    task = task or source.task
    try:
        if task is None:
            config = transformers.AutoConfig.from_pretrained(source.path, **source.arguments)
            wanted = (config.architectures or ["AutoModel"])[0]
        else:
            wanted = TASKS[task]
        model_class: Any = getattr(transformers, wanted, None)
        is_model = isinstance(model_class, type) and (
            issubclass(model_class, transformers.PreTrainedModel) or wanted.startswith("AutoModel")
        )
        if not is_model:  # a config may name any attribute of transformers
            raise ModelError(
                f"the config of {name} names the class {wanted}, which is not a model of "
                f"transformers {transformers.__version__}. Choose a head with --task"
            )
        model: torch.nn.Module = model_class.from_pretrained(source.path, **source.arguments)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"{name} can't be loaded: {first_line(error)}. Pass a local folder, "
            f"{CONFIG_PREFIX}bert-base or {DEMO}; a hub id needs a network"
        ) from error
    return model.eval()
