"""Facts about the acquisition of an image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Acquisition:
    """Facts about an acquisition, without patient data; None for unknown facts.

    Attributes:
        modality: DICOM code; "" if unknown.
        sequence: MR sequence: "T1", "T2", "FLAIR", "PD", "DWI", "T2*", "TOF", …
        phase: contrast phase: "native", "arterial", "portal venous", "delayed".
        vendor: one of the known vendors, such as "Siemens".
        model_family: one of the known scanner families, such as "Skyra".
        field_strength: field strength in T.
        kvp: tube voltage in kV.
        kernel: reconstruction kernel of CT: "soft", "standard" or "sharp".
        contrast_agent: whether a contrast agent was given.
        slice_thickness: slice thickness in mm.
        pixel_spacing: distance of rows and of columns in mm.
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
