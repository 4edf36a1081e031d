"""How an image was acquired, in a few facts; from a DICOM header where there is one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Acquisition:
    """Facts about an acquisition; None for what is not known. No patient data has a place here.

    Attributes:
        modality: DICOM code, "" when unknown.
        sequence: of MR: "T1", "T2", "FLAIR", "PD", "DWI", "T2*", "TOF", …
        phase: of contrast agent: "native", "arterial", "portal venous", "delayed".
        vendor: such as "Siemens"; one of the known names.
        model_family: such as "Skyra"; without serial numbers.
        field_strength: in tesla.
        kvp: tube voltage in kV.
        kernel: reconstruction kernel of CT: "soft", "standard" or "sharp".
        contrast_agent: whether one was given.
        slice_thickness: in millimetre.
        pixel_spacing: of rows and columns, in millimetre.
    """

    modality: str = ""
    sequence: str | None = None
    phase: str | None = None
    vendor: str | None = None
    model_family: str | None = None
    field_strength: float | None = None
    kvp: float | None = None
    kernel: str | None = None
    contrast_agent: bool | None = None
    slice_thickness: float | None = None
    pixel_spacing: tuple[float, float] | None = None
