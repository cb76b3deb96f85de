"""Photo → aligned faces → photo: reading, detecting, aligning, pasting back, writing."""

from privacy_core.faces.align import Alignment, fit_alignment, template_mask, warp_to_template
from privacy_core.faces.cascade import (
    DEFAULT_DETECTOR,
    DETECTORS,
    CascadeDetector,
    QuickFirst,
    default_detector,
    detector,
    finder_of_one,
)
from privacy_core.faces.detect import CnnDetector, FaceDetector, HogDetector, Landmarks, find_again
from privacy_core.faces.output import DigitalSourceType, encode_png, write_png, write_whole
from privacy_core.faces.paste import PreparedPhoto, prepare
from privacy_core.faces.photo import photo_from_pixels, read_photo

__all__ = [
    "DEFAULT_DETECTOR",
    "DETECTORS",
    "Alignment",
    "CascadeDetector",
    "CnnDetector",
    "DigitalSourceType",
    "FaceDetector",
    "HogDetector",
    "Landmarks",
    "PreparedPhoto",
    "QuickFirst",
    "default_detector",
    "detector",
    "encode_png",
    "find_again",
    "finder_of_one",
    "fit_alignment",
    "photo_from_pixels",
    "prepare",
    "read_photo",
    "template_mask",
    "warp_to_template",
    "write_png",
    "write_whole",
]
