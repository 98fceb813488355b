"""The encoder that ``generate`` calls before the first token, served as calls of a model are."""

from transformers import PreTrainedConfig, PreTrainedModel

from cpuaccel.building.settings import BuildSettings
from cpuaccel.generation.subject import ENCODERS, OUTPUTS, extra_outputs, new_cache
from cpuaccel.model.signature import Inputs
from cpuaccel.pipeline import Pipeline
from cpuaccel.report import CallKey
from cpuaccel.served_part import ServedPart

UNREAD = {"whisper": ("attention_mask",)}
"""Inputs that encoders take and don't read, by ``model_type``: each length of Whisper's mask, which
is that of the whole recording, would be another way of calling."""


class ServedEncoder(ServedPart):
    """Calls of an encoder in ``generate``.

    Attributes:
        parts: attributes of the model, by which ``generate`` reaches these calls.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: PreTrainedModel,
        pipeline: Pipeline,
        settings: BuildSettings,
    ) -> None:
        """Plan the pipeline for the encoder; variants are built at its first calls.

        Args:
            model: the original in eval mode.
            encoder: its encoder.
            pipeline: of the model.
            settings: of the model.
        """
        super().__init__(encoder, pipeline, settings)
        self._model = model
        self._config = encoder.config
        self._input: str = encoder.main_input_name
        attribute = ENCODERS.get(model.config.model_type)
        self.parts = (
            {"get_encoder": self._get_encoder} if attribute is None else {attribute: self.stand_in}
        )

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Encode."""
        return super().__call__(*args, **needed(kwargs, self._config))

    def _serve(self, inputs: Inputs) -> object:
        if reason := extra_outputs(inputs):
            self._serving.count_fallback(CallKey.METHOD, reason)
            return self._variants.reference.serve(inputs)
        return super()._serve(inputs)

    def first_call(self, inputs: dict[str, object]) -> dict[str, object] | None:
        """Let a call without a cache begin with one, as the first call in ``generate`` does.

        Whisper detects the language by such a call, with the speech itself.

        Args:
            inputs: of the encoder-decoder, by name.

        Returns:
            Its inputs with the encoder's output; None if it is another call.
        """
        name = self._input
        if inputs.get("use_cache") is not False or inputs.get("past_key_values") is not None:
            return None
        named = {key: value for key, value in inputs.items() if key != name}
        if named.get(OUTPUTS) is None:
            if inputs.get(name) is None:
                return None
            mask = {key: named[key] for key in ("attention_mask",) if key in named}
            named[OUTPUTS] = self(**{name: inputs[name]}, **mask)
        return {**named, "use_cache": True, "past_key_values": new_cache(self._model)}

    def _get_encoder(self, modality: str | None = None) -> object:
        return self.stand_in if modality is None else self._model.get_encoder(modality)


def needed(inputs: dict[str, object], config: PreTrainedConfig) -> dict[str, object]:
    """Leave out what an encoder doesn't read, and what its configuration says anyway.

    ``generate`` passes it in some calls only, and each way of calling has a variant of its own.
    """
    defaults = {
        name: (None, getattr(config, name, None))
        for name in ("output_attentions", "output_hidden_states", "return_dict")
    }
    unread = UNREAD.get(config.model_type, ())
    return {
        name: value
        for name, value in inputs.items()
        if name not in unread and (name not in defaults or value not in defaults[name])
    }
