"""What strength means with a model: measured on held-out people, fitted, kept as a curve."""

from privacy_core.calibrate.anchors import fit_curve, verification_threshold
from privacy_core.calibrate.calibration import calibrate_backend, calibrate_model
from privacy_core.calibrate.measuring import (
    CalibrationSet,
    Measurement,
    held_out,
    measure_variants,
    spread,
)

__all__ = [
    "CalibrationSet",
    "Measurement",
    "calibrate_backend",
    "calibrate_model",
    "fit_curve",
    "held_out",
    "measure_variants",
    "spread",
    "verification_threshold",
]
