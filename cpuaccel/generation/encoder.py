"""The encoder that ``generate`` calls before the first token, served as calls of a model are."""

import functools
import inspect
from dataclasses import replace

from transformers import PreTrainedModel

from cpuaccel.generation.subject import ENCODERS, encoder_of
from cpuaccel.model.redirected import redirected
from cpuaccel.model.torch_modes import inference
from cpuaccel.planning.plan import make_plan
from cpuaccel.report import Report
from cpuaccel.serving import Serving
from cpuaccel.variants import Variants


class ServedEncoder:
    """Calls of an encoder: by variants of its own, built by the model's pipeline.

    Attributes:
        parts: attributes of the model, by which ``generate`` reaches these calls.
    """

    def __init__(
        self, model: PreTrainedModel, encoder: PreTrainedModel, of_model: Variants
    ) -> None:
        plans = [make_plan(encoder, plan.pipeline) for plan in of_model.plans]
        # The model is what the stepper was compared with, and what a fallback needs.
        settings = replace(of_model.settings, inplace=False, keep_original=True)
        self._variants = Variants(encoder, plans[:1], settings)
        self._serving = Serving(self._variants)
        self._model = model
        functools.update_wrapper(self, encoder.forward)
        self.__signature__ = inspect.signature(encoder.forward)
        self._served = redirected(encoder, self)
        attribute = ENCODERS.get(model.config.model_type)
        self.parts = (
            {"get_encoder": self._get_encoder} if attribute is None else {attribute: self._served}
        )

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Encode."""
        self._variants.refresh()
        inputs = self._variants.reference.binder.bind(args, kwargs)
        with inference():
            return self._serving.serve(inputs)

    @property
    def report(self) -> Report:
        """What was built for the encoder, and what served its calls."""
        return self._variants.report

    def _get_encoder(self, modality: str | None = None) -> object:
        return self._served if modality is None else self._model.get_encoder(modality)


def serve_encoder(model: PreTrainedModel, variants: Variants) -> ServedEncoder | None:
    """Serve the encoder of a model with these variants; None if it has none."""
    encoder = encoder_of(model)
    return None if encoder is None else ServedEncoder(model, encoder, variants)
