"""Sizes of crops: growing ones in training, and those of evaluation by timm's crop_pct."""

from __future__ import annotations

import numpy as np
import pytest
from timm.data.transforms_factory import create_transform

from resnext_train.config import EvalSection, load_recipe
from resnext_train.errors import InputError


@pytest.mark.parametrize(
    ("start", "end", "first", "last"), [(160, 192, 2.0, 13.0), (128, 288, 0.0, 50.0), (96, 224, 3.5, 17.25)]
)
def test_crops_grow_as_in_ffcv(start: int, end: int, first: float, last: float) -> None:
    augment = load_recipe(
        "resnet18.yaml", [f"augment.start_size={start}", f"augment.size={end}", f"augment.growth=[{first}, {last}]"]
    ).augment
    epochs = range(60)
    interpolated = np.interp(epochs, [first, last], [start, end])
    expected = [
        start if e <= first else end if e >= last else int(np.round(value / 32)) * 32
        for e, value in zip(epochs, interpolated, strict=True)
    ]
    assert [augment.size_in(epoch) for epoch in epochs] == expected
    assert augment.sizes(60) == {size: expected.index(size) for size in sorted(set(expected))}


def test_crops_stay_within_both_sizes_and_may_not_grow_at_all() -> None:
    grow = ["augment.start_size=36", "augment.size=44", "augment.growth=[0, 4]"]
    assert load_recipe("smoke.yaml", grow).augment.sizes(9) == {36: 0, 44: 4}
    assert load_recipe("smoke.yaml").augment.sizes(9) == {48: 0}
    assert load_recipe("smoke.yaml", grow).at_full_size().augment.sizes(9) == {44: 0}


@pytest.mark.parametrize(("crop", "ratio"), [(224, 0.875), (224, 0.95), (288, 0.95), (240, 0.9), (96, 0.7), (160, 1.0)])
def test_the_short_side_by_crop_ratio_is_timms(crop: int, ratio: float) -> None:
    resize = create_transform((3, crop, crop), is_training=False, crop_pct=ratio).transforms[0]
    section = EvalSection(resize=None, crop_ratio=ratio, crop=crop)
    assert section.short_side == resize.size
    assert f"short side {resize.size} " in section.description


def test_resize_and_crop_ratio_exclude_each_other() -> None:
    recipe = load_recipe("resnet18.yaml", ["eval.crop_ratio=0.95", "eval.crop=288"])
    assert recipe.eval.short_side == 303
    with pytest.raises(InputError, match=r"^override .*: eval\.resize \(300\) .* leave one out"):
        load_recipe("resnet18.yaml", ["eval.crop_ratio=0.95", "eval.resize=300"])
    with pytest.raises(InputError, match="are both null; set one of them"):
        load_recipe("resnet18.yaml", ["eval.resize=null"])
