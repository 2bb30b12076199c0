"""The published figures that reports show beside ours: of the paper, and of the nine systems that it is compared with.

All are fractions of 1, and each stands with where it was read. Of some sources only the abstract was read; what
another source prints differently is kept beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from busi_lab.classes import BUSI

PAPER_DATASET = "busi"
"""The dataset that the paper's figures are of; on another one, ours have nothing to do with them."""

PAPER = "Dajam & Qahmash, IJACSA 16(5), 2025"
LESIONS = ("benign", "malignant")


@dataclass(frozen=True)
class Recipe:
    """What a system is trained with: as published, or as our experiment infers it.

    Attributes:
        weights: what it starts from, ``imagenet`` or ``none``.
        pixels: side of its images.
        epochs: so many, or at most so many where it ``stops_early``.
        stops_early: whether training ends by itself.
        missing: a part that cannot be repeated, because its data are not public; empty for none.
        cut: whether scans are cut to the lesion that a first stage finds, as with ``data.roi``.
    """

    weights: str = "imagenet"
    pixels: int = 224
    epochs: int = 50
    stops_early: bool = False
    missing: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Quoted:
    """The same system in another source, with other figures."""

    metrics: Mapping[str, float]
    source: str
    test_set: str


@dataclass(frozen=True)
class PublishedResult:
    """One published row.

    Attributes:
        name: of the model.
        task: as in ``summary.json``.
        metrics: our metric names to fractions; empty where no figure was read.
        source: with table or page, or that only the abstract was read.
        test_set: the images there.
        inferred: what the source leaves open, or what of it was not read.
        recipe: what it is trained with.
        classes: of the images; figures of fewer classes are not compared with those of more.
        curated: whether near-copies were left out there, so that ``split=curated`` is a protocol like theirs.
        spread: standard deviations over folds, by metric.
        ranges: lowest and highest of several networks, by metric, where no figure was read for each.
        note: a figure on other images, or how exact these are.
        quoted: what another source prints for it.
    """

    name: str
    task: str
    metrics: Mapping[str, float]
    source: str
    test_set: str
    inferred: str
    recipe: Recipe = Recipe()
    classes: tuple[str, ...] = BUSI.names
    curated: bool = False
    spread: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    note: str = ""
    quoted: Quoted | None = None

    @property
    def main(self) -> str:
        """The metric that is compared: accuracy of classes, Dice of masks, another where that alone is published."""
        known = (*self.metrics, *self.ranges)
        usual = "dice" if self.task == "segmentation" else "accuracy"
        return usual if usual in known or not known else known[0]


def _figures(accuracy: float, precision: float, recall: float, f1: float) -> Mapping[str, float]:
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


# ------------------------------------------------------------------------------------------------------- the paper

_PAPER_SET = "BUSI, 155 images, three classes"
_PAPER_INFERRED = "the split (the test images probably were the validation images as well), the learning rate"


def _of_paper(
    name: str, metrics: Mapping[str, float], recipe: Recipe, inferred: str = _PAPER_INFERRED
) -> PublishedResult:
    source = f"{PAPER}, Table III"
    return PublishedResult(name, "classification", metrics, source, _PAPER_SET, inferred, recipe)


_VGG16 = _of_paper("VGG16", _figures(0.90, 0.94, 0.86, 0.89), Recipe())
_PAPER: Mapping[str, PublishedResult] = {
    "paper/mobilenet": _of_paper("MobileNet", _figures(0.98, 0.98, 0.99, 0.98), Recipe()),
    "paper/inception_v3": _of_paper(
        "InceptionV3",
        _figures(0.95, 0.93, 0.95, 0.94),
        Recipe(pixels=299),
        f"{_PAPER_INFERRED}, 299 px, the amounts of label smoothing and dropout",
    ),
    "paper/vgg16": _VGG16,
    "paper/vgg16_frozen": _VGG16,  # the paper tried both ways and gives one row
    "paper/custom_cnn": _of_paper(
        "Custom CNN", _figures(0.54, 0.45, 0.37, 0.34), Recipe("none"), f"{_PAPER_INFERRED}, the amount of dropout"
    ),
    "paper/unet": PublishedResult(
        *("MobileNet U-Net", "segmentation", {"dice": 0.8959, "pixel_accuracy": 0.9648}, f"{PAPER}, Table V"),
        "BUSI, number of images not given",
        f"{_PAPER_INFERRED}, the widths of the decoder",
        Recipe(pixels=256),
    ),
}

# ------------------------------------------------------------------------------ the systems that it is compared with

_ABSTRACT = "abstract only"
_PLACE = "page or table not noted"
_HIJAB = f"Hijab et al., ICABME 2019; {_PLACE}"
_HIJAB_SET = "private, two classes, 1,300 images in all"
_HIJAB_OPEN = "rate, epochs, amount of augmentation"
_AYANA = f"Ayana et al., Diagnostics 12:135, 2022; {_ABSTRACT}"
_AYANA_SET = "400 of BUSI's images (MT-Small), two classes, five folds"
_AYANA_OPEN = "rate, epochs, batch, augmentation"
_CELLS = "no stage on the 20,400 cell images, which are not public"
_ISLAM = f"Islam et al., Machine Learning with Applications 16:100555, 2024; {_ABSTRACT}"
_KIM = f"Kim et al., Scientific Reports 11:24382, 2021; {_ABSTRACT}"
_UYSAL = f"Uysal & Kose, Engineering Proceedings 31:8, 2022; {_PLACE}"
_UYSAL_OPEN = "the whole scan instead of a centre crop, rate, epochs, batch, amount of augmentation"
_WEI = f"Wei et al., Current Oncology 31:5057, 2024; {_PLACE}"
_WEI_OPEN = "weights of both losses, three classes, 224 px, rate, epochs, batch"
_AUMENTE = f"Aumente-Maestro et al., CMPB 260, 2025; {_PLACE}"
_AUMENTE_SET = "curated BUSI without near-copies, 450 images, three classes, four folds"
_AUMENTE_OPEN = "Dice image by image, 0 for scans without a lesion"
_AUMENTE_RECIPE = Recipe("none", pixels=128, epochs=200, stops_early=True)
_MADHU = f"Madhu et al., Cancers 16:3777, 2024; {_ABSTRACT}"
_SHILASKAR = f"Shilaskar et al., Biomedical & Pharmacology Journal 18(1), 2025, pages 569-580; {_ABSTRACT}"
_BUSI = "BUSI, number of test images not read"
_BUSI_TWO = "BUSI, two classes, number of test images not read"
_NOT_READ = "no figure of this network was read"


def _hijab(name: str, accuracy: float, inferred: str, recipe: Recipe, quoted: Quoted | None = None) -> PublishedResult:
    return PublishedResult(
        *(name, "classification", {"accuracy": accuracy}, _HIJAB, _HIJAB_SET, f"{inferred}, {_HIJAB_OPEN}"),
        *(recipe, LESIONS),
        quoted=quoted,
    )


def _ayana(name: str, pixels: int, accuracy: float | None = None) -> PublishedResult:
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return PublishedResult(
        *(name, "classification", metrics, _AYANA, _AYANA_SET, _AYANA_OPEN),
        *(Recipe(pixels=pixels, missing=_CELLS), LESIONS),
        spread={"accuracy": 0.011} if metrics else {},
        note="0.99 ± 0.006 on Mendeley's 200 images" if metrics else f"{_NOT_READ}; ResNet50 with Adagrad was the best",
    )


def _kim(name: str) -> PublishedResult:
    return PublishedResult(
        *(name, "localization", {}, _KIM, "private, two classes, 200 images"),
        "the figure of each network, the threshold of the map, rate, epochs, batch, augmentation",
        classes=LESIONS,
        ranges={"auroc_benign_malignant": (0.92, 0.96)},
        note="the range of three networks; 0.86 to 0.90 on 200 images of the external set; "
        "all malignant masses localised, 98 % of them by ResNet34",
    )


def _uysal(name: str, *quoted: float) -> PublishedResult:
    table = Quoted(_figures(*quoted), f"{PAPER}, Table VI", "BUSI")
    return PublishedResult(*(name, "classification", {"accuracy": quoted[0]}, _UYSAL, _BUSI, _UYSAL_OPEN), quoted=table)


def _wei(name: str) -> PublishedResult:
    note = "about; with which ResNet was not read; 0.87 on MIBUS"
    return PublishedResult(name, "multitask", {"accuracy": 0.95}, _WEI, _BUSI, _WEI_OPEN, note=note)


_COMPARED: Mapping[str, PublishedResult] = {
    "published/hijab2019/cnn": _hijab(
        *("Small CNN", 0.82, "which network", Recipe("none")),
        Quoted({"accuracy": 0.79}, f"{PAPER}, Table I", "the same private images"),
    ),
    "published/hijab2019/vgg16_frozen": _hijab("VGG16, frozen", 0.94, "which layers are trained", Recipe()),
    "published/hijab2019/vgg16_tuned": _hijab("VGG16, fine-tuned", 0.97, "which layers are trained", Recipe()),
    "published/ayana2022/resnet50": _ayana("ResNet50, three stages", 224, 0.987),
    "published/ayana2022/inception_v3": _ayana("InceptionV3, three stages", 299),
    "published/ayana2022/efficientnet_b2": _ayana("EfficientNetB2, three stages", 260),
    "published/islam2024/edcnn": PublishedResult(
        *("EDCNN (MobileNet + Xception)", "classification", {"accuracy": 0.8782, "auroc": 0.91}, _ISLAM, _BUSI),
        "three classes, the head, amount of dropout, rate, epochs, batch",
        note="0.8569 on UDIAT, 163 images, two classes",
        quoted=Quoted(_figures(0.8569, 0.84, 0.78, 0.7939), f"{PAPER}, Table VI", "UDIAT, two classes"),
    ),
    "published/islam2024/unet": PublishedResult(
        *("U-Net", "segmentation", {}, _ISLAM, _BUSI, "the encoder, from scratch, 256 px, BCE + Dice"),
        Recipe("none", pixels=256),
        note=_NOT_READ,
    ),
    "published/kim2021/vgg16": _kim("VGG16, weakly supervised"),
    "published/kim2021/resnet34": _kim("ResNet34, weakly supervised"),
    "published/kim2021/googlenet": _kim("GoogLeNet, weakly supervised"),
    "published/uysal2022/vgg16": _uysal("VGG16", 0.8111, 0.7777, 0.7085, 0.7690),
    "published/uysal2022/resnet50": _uysal("ResNet50", 0.8540, 0.8320, 0.9367, 0.8793),
    "published/uysal2022/resnext50": _uysal("ResNeXt50", 0.8583, 0.8292, 0.7680, 0.8731),
    "published/wei2024/mffmt_resnet18": _wei("MFFMT on ResNet18"),
    "published/wei2024/mffmt_resnet50": _wei("MFFMT on ResNet50"),
    "published/aumente2025/unetpp": PublishedResult(
        "Multi-task UNet++",
        "multitask",
        {"accuracy": 0.802, "f1_weighted": 0.801, "dice_benign": 0.806, "dice_malignant": 0.731},
        _AUMENTE,
        _AUMENTE_SET,
        f"that the figures are of UNet++, the better one; {_AUMENTE_OPEN}",
        _AUMENTE_RECIPE,
        curated=True,
        spread={"accuracy": 0.018},
    ),
    "published/aumente2025/nnunet": PublishedResult(
        *("Multi-task nnU-Net", "multitask", {}, _AUMENTE, _AUMENTE_SET, _AUMENTE_OPEN, _AUMENTE_RECIPE),
        curated=True,
        note=f"{_NOT_READ}; UNet++ was the better one",
    ),
    "published/madhu2024/unet": PublishedResult(
        *("UCapsNet, first stage", "segmentation", {}, _MADHU, _BUSI_TWO),
        "the encoder, the numbers of filters, from scratch, rate, epochs, batch, 256 px, BCE + Dice",
        *(Recipe("none", pixels=256), LESIONS),
        note=f"{_NOT_READ}; the accuracy is of the second stage",
    ),
    "published/madhu2024/capsules": PublishedResult(
        *("UCapsNet", "classification", {"accuracy": 0.9922, "precision": 0.9812, "recall": 0.9952}, _MADHU),
        _BUSI_TWO,
        "the routing, the sizes of the capsules, the loss, the cut, rate, epochs, batch, pixels",
        *(Recipe("none", pixels=64, cut=True), LESIONS),
    ),
    "published/shilaskar2025/vgg16": PublishedResult(
        *("VGG16", "classification", {"accuracy": 0.90}, _SHILASKAR, _BUSI),
        "that it is fine-tuned from ImageNet, rate, epochs, batch",
    ),
    "published/shilaskar2025/unet": PublishedResult(
        *("U-Net", "segmentation", {"pixel_accuracy": 0.98}, _SHILASKAR, _BUSI),
        "that its accuracy is of pixels, the encoder, from scratch, 256 px, BCE + Dice",
        Recipe("none", pixels=256),
    ),
}

PUBLISHED: Mapping[str, PublishedResult] = {**_PAPER, **_COMPARED}
"""Experiment name to its published row."""

CAVEATS: Mapping[str, str] = {
    "published": "On BUSI the `published` protocol has near-copies of training images in its test set "
    "(about 28 % of the test images): figures under it are too good to be believed as they stand.",
    "holdout": "On BUSI the `holdout` protocol ignores near-copies (on average 38 % of the test images "
    "have one in training): figures under it are too good to be believed as they stand.",
}
"""Split protocol to the warning that every comparison under it carries.

Shares counted with the duplicate groups of Pawlowska, Karwat & Zolek 2023 (CC BY 4.0).
"""


def published_for(experiment: str | None) -> Mapping[str, float]:
    """The paper's figures for an experiment by metric name; empty where the paper has none."""
    result = _PAPER.get(experiment or "")
    return result.metrics if result else {}
