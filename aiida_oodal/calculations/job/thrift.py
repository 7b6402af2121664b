"""Processes of which less is written and asked at every step."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from aiida.engine import Process


class ThriftyProcess(Process):
    """A process that encodes its inputs once, and asks for its outputs when there are new ones.

    AiiDA encodes the inputs, which never change, twice at every checkpoint, and asks the database for the outputs at
    every change of state.
    """

    #: Inputs as they were given, and with defaults, as texts.
    _raw_text: str | None = None
    _text: str | None = None
    #: Names of the outputs that were attached.
    _attached: Set[str] = frozenset()

    def encode_input_args(self, inputs: Any) -> str:
        """Return inputs, or outputs, as a text for a checkpoint."""
        if inputs is self._raw_inputs:
            self._raw_text = self._raw_text or str(super().encode_input_args(inputs))
            return self._raw_text
        if inputs is self._parsed_inputs:
            self._text = self._text or str(super().encode_input_args(inputs))
            return self._text
        return str(super().encode_input_args(inputs))

    def update_outputs(self) -> None:
        """Attach the outputs that are new."""
        outputs = set(self._flat_outputs())
        if outputs - self._attached:
            super().update_outputs()
            self._attached = outputs
