"""Fit what gamma means in eV/angstrom to judged labels, and place gamma_break by it."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.engine.trust.bound import ErrorBound
from aiida_oodal.engine.trust.calibration import CalibrationSettings, Sample, calibrate, place_break


@calcfunction
def calibrate_error(
    settings: orm.Dict,
    labels: StructureSetData,
    validation: orm.ArrayData | None = None,
    before: orm.Dict | None = None,
    **earlier: StructureSetData,
) -> orm.Dict:
    """Return what :func:`.calibrate` finds.

    :param settings: fields of :class:`.CalibrationSettings`.
    :param labels: what was labelled in this round, with ``gamma`` and ``force_error``.
    :param validation: output ``judged_validation`` of :class:`.JudgeCalculation`.
    :param before: the calibration of the round before.
    :param earlier: what was labelled in earlier rounds, likewise, by any key.
    """
    arrays = {} if validation is None else {name: validation.get_array(name) for name in validation.get_arraynames()}
    found = calibrate(
        Sample.of_structures(list(labels)),
        CalibrationSettings.load(settings.get_dict()),
        earlier=[sample for _, node in sorted(earlier.items()) for sample in Sample.of_structures(list(node))],
        validation=Sample.of_arrays(arrays) if arrays else (),
        before=None if before is None else before.get_dict(),
    )
    return orm.Dict(found)


@calcfunction
def set_gamma_break(thresholds: orm.Dict, settings: orm.Dict, calibration: orm.Dict) -> orm.Dict:
    """Return thresholds with ``gamma_break`` where the bound of a calibration passes ``halt_error``."""
    bound = ErrorBound.from_plain(calibration['bound'])
    limits, halt_error = Thresholds.load(thresholds.get_dict()), settings['halt_error']
    return orm.Dict(place_break(limits, bound, halt_error).plain())
