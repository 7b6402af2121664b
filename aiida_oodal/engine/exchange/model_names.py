"""Which file is which member of an ensemble, by the names that ``mace_run_train`` gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from aiida_oodal.engine.errors import OodalError

__all__ = ['label_models']

#: The seed in a file name: w1, w2, ...
_SEED = re.compile(r'(?<![a-zA-Z])w\d+(?!\d)')
#: What MACE writes beside a model: the same model, compiled to TorchScript.
_COMPILED = '_compiled'
_WAY_OUT = 'say which file is which: models: {w1: FILE, w2: FILE, ...}'


def label_models(files: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Give the files of an ensemble their labels: the seed in the name (w1), else their order.

    Compiled copies (``*_compiled.model``) are passed over, where there is anything else.

    :param files: paths, or UUIDs of nodes, which have no names.
    :return: file by label, and sentences that say what was passed over.
    :raises OodalError: if a seed is in the names of several files, or in the names of some files only.
    """
    compiled = [file for file in files if Path(file).stem.endswith(_COMPILED)]
    kept = [file for file in files if file not in compiled] or list(files)
    notes = [f'{file} is passed over: a compiled copy' for file in compiled if file not in kept]
    seeds: dict[str, list[str]] = {}
    for file in kept:
        found = _SEED.findall(Path(file).stem)
        seeds.setdefault(found[-1] if found else '', []).append(file)
    unnamed = seeds.pop('', [])
    if unnamed and seeds:
        named = next(iter(seeds.values()))[0]
        raise OodalError(f'{unnamed[0]} has no seed in its name (w1, w2, ...), {named} has one; {_WAY_OUT}')
    for seed, same in seeds.items():
        if len(same) > 1:
            raise OodalError(
                f'{len(same)} files are of one seed, {seed}: {", ".join(same)}. Members of an ensemble differ in their '
                f'seed; stages and checkpoints of one training (`_stagetwo`, `_swa`) do not. Take one of them, and '
                f'{_WAY_OUT}'
            )
    if unnamed:
        return {f'w{index}': file for index, file in enumerate(unnamed, start=1)}, notes
    return {seed: same[0] for seed, same in seeds.items()}, notes
