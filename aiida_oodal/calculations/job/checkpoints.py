"""Checkpoints of processes with many inputs."""

from __future__ import annotations

from typing import Any

from aiida.engine import Process


class EncodedOnce(Process):
    """A process that encodes its inputs once: AiiDA does it twice at every checkpoint, and they never change."""

    #: Inputs as they were given, and with defaults, as texts.
    _raw_text: str | None = None
    _text: str | None = None

    def encode_input_args(self, inputs: Any) -> str:
        """Return inputs, or outputs, as a text for a checkpoint."""
        if inputs is self._raw_inputs:
            self._raw_text = self._raw_text or str(super().encode_input_args(inputs))
            return self._raw_text
        if inputs is self._parsed_inputs:
            self._text = self._text or str(super().encode_input_args(inputs))
            return self._text
        return str(super().encode_input_args(inputs))
