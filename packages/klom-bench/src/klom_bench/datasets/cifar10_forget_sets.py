"""The ten forget sets of CIFAR-10 in data-unlearning-bench and EasyDUB, recognised by their content."""

import hashlib

import numpy as np

from unlearn_core.errors import InvalidInput

N_TRAIN = 50_000

# Forget set -> (its size, sha256 of its indices in file order as little-endian int64). 1-3 are random; 4-6
# and 7-9 are the extremes of the first and second principal component of the datamodel matrix; 10 is the 100
# nearest images to train image 6 in CLIP space and the only one that is not sorted.
FORGET_SETS = {
    1: (10, "ad3ba977967dbafa3d0dc18eeabf336c050eeac3c0fb468f182dd4dc16d349a7"),
    2: (100, "b1d088d2bfab91aee858d773d40eb56cdc90daecc2219f2f79ff5cf08b0f5515"),
    3: (1000, "3b666da43172f1e5894cc63127acc13b6b7e397567e3f9af40a9b94fc4c2f676"),
    4: (10, "804455852e64b12ff62843df41aadaaebba80c16cd31ac82d00fb6d4107e63b6"),
    5: (100, "438cc2ddeb5e4f09bcee6a29be6d9fb6c0d22f127fdf0a7b539c1a4e0a968f3f"),
    6: (500, "f3cb1d15142cc06d5fedcff74f95d0b91a879184b8b521ae802d811527178db5"),
    7: (10, "8a6fbd4eae99922b0651b51f735b68a5723c7219036d861ebd3ae654de54a370"),
    8: (100, "9c5ff3397238d1ab370114776cce8ee043c6e7d79171d471554adbe4ef0f3fd2"),
    9: (500, "a76781a4ff4f9bf2d8a2e8fe998dad26b7bef79e05b091171475a42860b2a145"),
    10: (100, "4ca70e5be987dbb48198208b3da98d7d249085819a23f6f108921759a9e389f9"),
}


def random_forget_set(forget_set: int) -> np.ndarray:
    """Return forget set 1, 2 or 3 as it was drawn: (10 | 100 | 1000,) int64, ascending.

    numpy's legacy generator with seed 0, 1 or 2 draws from 50,000 without replacement; equal to the files.

    Raises:
        InvalidInput: another number.
    """
    if forget_set not in (1, 2, 3):
        raise InvalidInput(f"forget set {forget_set} was not drawn at random; only 1, 2 and 3 were")
    size, _ = FORGET_SETS[forget_set]
    drawn = np.random.RandomState(forget_set - 1).choice(N_TRAIN, size, replace=False)
    return np.sort(drawn).astype(np.int64)


def is_published(indices: np.ndarray, forget_set: int) -> bool:
    """Tell whether `indices` are the published forget set of that number, in the published order."""
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest() == FORGET_SETS[forget_set][1]
