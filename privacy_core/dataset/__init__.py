"""DATA in every form as rows whose pictures stay encoded; knows no face and no model."""

from privacy_core.dataset.opening import read_dataset
from privacy_core.dataset.source import RowSource, row_digest

__all__ = ["RowSource", "read_dataset", "row_digest"]
