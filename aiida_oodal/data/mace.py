"""One trained MACE model. The file is a pickle: it is opened on the compute node only, never here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from aiida.orm import SinglefileData
from aiida.orm.pydantic import OrmMetadataField

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import MODEL_FILE
from aiida_oodal.engine.mace.model_file import find_heads, is_compiled

from .caching import StoredHash

#: How files begin that torch writes: as a zip archive, or (before version 1.6) as a bare pickle.
_TORCH_BEGINNINGS = (b'PK\x03\x04', b'\x80')


class MaceModelData(SinglefileData):
    """A ``.model`` file as ``mace_run_train`` writes it; its key in an ensemble (w1, w2, ...) stands for its seed.

    Elements, cutoff and the layout of the features are inside the pickle. They are read in the job and become
    attributes of the :class:`~aiida_oodal.data.LatentsData` that the model makes.

    :param file: the file.
    :raises OodalError: if it cannot be a model that torch saved.
    """

    _CLS_NODE_CACHING = StoredHash

    MODEL = MODEL_FILE

    class AttributesModel(SinglefileData.AttributesModel):
        """What can be queried without opening the file."""

        sha256: str = OrmMetadataField(description='SHA-256 of the file')
        heads: list[str] | None = OrmMetadataField(None, description='Names of the heads, where the file says them')

    def __init__(self, file: Path | str | None = None, **kwargs: Any) -> None:
        if file is None:
            super().__init__(None, **kwargs)
            return
        path = Path(file)
        digest = _digest(path)
        super().__init__(path.resolve(), filename=self.MODEL, **kwargs)
        heads = find_heads(path)
        self.base.attributes.set_many({'sha256': digest, 'heads': None if heads is None else list(heads)})

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return str(self.base.attributes.get('sha256'))

    @property
    def heads(self) -> tuple[str, ...] | None:
        """Names of the heads; None where the file does not say them."""
        heads = self.base.attributes.get('heads', None)
        return None if heads is None else tuple(heads)


def _digest(path: Path) -> str:
    """Hash a file and refuse what torch cannot have saved."""
    try:
        with path.open('rb') as handle:
            beginning = handle.read(4)
            if not beginning.startswith(_TORCH_BEGINNINGS):
                raise OodalError(
                    f'{path} begins with {beginning!r}: that is no model saved by torch; give the `.model` file that '
                    '`mace_run_train` wrote'
                )
            if is_compiled(path):
                raise OodalError(
                    f'{path} is a compiled model, which only MACE itself can run: give the `.model` file that '
                    '`mace_run_train` wrote beside it, without `_compiled` in its name'
                )
            handle.seek(0)
            return hashlib.file_digest(handle, 'sha256').hexdigest()
    except OSError as error:
        raise OodalError(f'{path} cannot be read as a MACE model: {error.strerror}') from error
