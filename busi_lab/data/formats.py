"""The formats of ``busi-data import`` and ``export``: name, which is that of the module, and what it is."""

IMPORT_FORMATS = {
    "busbra": "BUS-BRA: bus_data.csv, Images, Masks",
    "breast": "BrEaST (TCIA Breast-Lesions-USG): a clinical table, case001.png, case001_tumor.png",
    "udiat": "UDIAT or Dataset B: original, GT, DatasetB.xlsx",
    "busuclm": "BUS-UCLM: images, masks in colours, INFO.csv",
    "oasbud": "OASBUD: radio-frequency data in a MATLAB file",
    "pairs": "a folder of images and one of masks with equal names, as BUSIS",
    "folder": "a subfolder of images for each class",
    "coco": "COCO: JSON with polygons or runs",
    "yolo": "YOLO: a text file of polygons for each image",
    "nnunet": "nnU-Net raw: dataset.json, imagesTr, labelsTr",
}
"""Modules of :mod:`busi_lab.data.importers`."""

EXPORT_FORMATS = {"nnunet": "nnU-Net raw", "coco": "COCO"}
"""Modules of :mod:`busi_lab.data.exporters`."""
