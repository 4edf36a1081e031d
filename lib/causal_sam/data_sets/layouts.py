"""Known layouts of folders with labelled images; a separate module that is fast to import, for help texts."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Kind of a data set; "auto" detects it from the folder."""

    AUTO = "auto"
    CHAOS = "chaos"
    BRATS = "brats"
    BTCV = "btcv"
    AMOS = "amos"
    ACDC = "acdc"
    IBSR = "ibsr"
    NAMED = "named"
    FOLDER = "folder"


LAYOUTS = {
    Kind.CHAOS: "Train_Sets/CT/N/DICOM_anon and Ground; Train_Sets/MR/N/T1DUAL/DICOM_anon/InPhase, …/OutPhase and "
    "T1DUAL/Ground; T2SPIR/DICOM_anon and Ground",
    Kind.BRATS: "BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz, …_t1, …_t1ce, …_t2 and …_seg, or "
    "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz, …-t1c, …-t2w, …-t2f and …-seg, up to two folders down",
    Kind.BTCV: "RawData/Training/img/img0001.nii.gz and …/label/label0001.nii.gz, or the same files in imagesTr and "
    "labelsTr",
    Kind.AMOS: "imagesTr/amos_0001.nii.gz and labelsTr/amos_0001.nii.gz, imagesVa and labelsVa",
    Kind.ACDC: "imagesTr/patient001_frame01.nii.gz, and the same files in labelsTr and scribblesTr",
    Kind.IBSR: "IBSR_01/IBSR_01.nii.gz and IBSR_01/IBSR_01_seg.nii.gz",
    Kind.NAMED: "NAME/image.nii.gz, NAME/label.nii.gz and NAME/labels.json with {value: name}",
    Kind.FOLDER: "cases.json with a list of {set, case, image, label, modality, sequence, labels: {value: name}}, "
    "paths relative to it; or images/ and labels/ with equal file names; or imagesTr/ and labelsTr/ with dataset.json "
    "(Decathlon, nnU-Net); or pairs NAME.nii.gz and NAME_label.nii.gz (also _seg, -label, -seg; .nii, .nrrd, .mha)",
}
