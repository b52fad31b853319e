"""FID, KID and CMMD against torch-fidelity, SciPy and closed forms, and what they are compared with."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from safetensors.numpy import save_file
from scipy.linalg import sqrtm

from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable, UnlearnWarning
from unlearn_core.protocols import Metric
from unlearn_core.spec import build
from unlearn_metrics import mmd
from unlearn_metrics.cmmd import CMMD, gaussian
from unlearn_metrics.extractors.clip import ClipImages
from unlearn_metrics.fid import FID, frechet, influence
from unlearn_metrics.images import read
from unlearn_metrics.kid import KID, cubic
from unlearn_metrics.references import BY_IMAGE, moments
from unlearn_metrics.statistics import influence_interval, paired_difference

few = pytest.mark.filterwarnings("ignore:fid of:unlearn_core.errors.UnlearnWarning")


@pytest.fixture
def tiny(tiny_clip):
    """Return the settings of an extractor that is quick."""
    return {"extractor": "clip", "extractor_settings": {"model": tiny_clip, "device": "cpu"}}


@pytest.fixture
def two_sets(sample_set, pictures):
    """Return 40 images and 50 brighter ones."""
    return sample_set(pictures(40)), sample_set(pictures(50, seed=1) // 2 + 100)


@pytest.fixture
def fidelity(tiny_clip):
    """Return torch-fidelity's metrics of two folders in the features of the tiny CLIP."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class TinyClip(FeatureExtractorBase):
        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list():
            return ("embedding",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "embedding"

        @staticmethod
        def can_be_compiled():
            return False

        @staticmethod
        def get_dummy_input_for_compile():
            return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

        def forward(self, x):
            images = list(x.permute(0, 2, 3, 1).numpy())
            return (torch.from_numpy(ClipImages(model=tiny_clip, device="cpu").features(images)),)

    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as REGISTRY

    if "tiny-clip" not in REGISTRY:
        torch_fidelity.register_feature_extractor("tiny-clip", TinyClip)

    def measure(one, other, **options):
        return torch_fidelity.calculate_metrics(
            input1=str(one.folder), input2=str(other.folder), feature_extractor="tiny-clip", cuda=False, cache=False,
            save_cpu_ram=True, verbose=False, samples_find_deep=False, **options,
        )  # fmt: skip

    return measure


# ---- against other code -------------------------------------------------------------------------------------


@few
def test_fid_equals_torch_fidelity(two_sets, tiny, fidelity):
    ours = FID(**tiny).measure(*two_sets)
    theirs = fidelity(*two_sets, fid=True)["frechet_inception_distance"]
    assert ours.value == pytest.approx(theirs, rel=1e-6) and ours.value > 1e-3
    assert (ours.metric, ours.direction, ours.n_scored, ours.n_unscored) == ("fid", "down", 40, 0)
    by_image = ours.parts[BY_IMAGE]
    assert ours.parts == {f"images of the reference {two_sets[1].folder}": 50, BY_IMAGE: by_image}
    assert np.mean(list(by_image.per_sample.values())) == pytest.approx(by_image.value) == ours.value
    assert ours.interval.low < ours.value < ours.interval.high


@few
@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_fid_equals_pytorch_fid_and_torchmetrics(two_sets, tiny, tiny_clip):
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torchmetrics.image.fid import FrechetInceptionDistance

    ours = FID(**tiny).measure(*two_sets).value
    found = [ClipImages(model=tiny_clip, device="cpu").features([read(s) for s in one]) for one in two_sets]
    wide = [rows.astype(np.float64) for rows in found]
    statistics = [part for rows in wide for part in (rows.mean(0), np.cov(rows, rowvar=False))]
    assert ours == pytest.approx(calculate_frechet_distance(*statistics), rel=1e-6)

    class Given(torch.nn.Module):
        """Takes features for images."""

        num_features = found[0].shape[1]

        def forward(self, rows):
            return rows

    theirs = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    for rows, real in zip(wide, (False, True), strict=True):
        theirs.update(torch.from_numpy(rows), real=real)
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-6)


@pytest.mark.parametrize("size", [10, 40])
def test_kid_equals_torch_fidelity(two_sets, tiny, fidelity, size):
    ours = KID(**tiny, subset_size=size % 40, subsets=20).measure(*two_sets)
    theirs = fidelity(*two_sets, kid=True, kid_subset_size=size, kid_subsets=20)
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.parts["std over subsets"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)
    assert ours.parts["images in a subset"] == size


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(13, 40))
def test_frechet_equals_sqrtm(seed, d, n):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(size=(n + 3, d)) + 1
    (m1, s1), (m2, s2) = moments(a, "a"), moments(b, "b")
    np.testing.assert_allclose(s1, np.atleast_2d(np.cov(a, rowvar=False)), atol=1e-10)
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet(m1, s1, m2, s2) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert frechet(m2, s2, m1, s1) == pytest.approx(expected, rel=1e-6, abs=1e-6)


# ---- closed forms -------------------------------------------------------------------------------------------


@given(st.floats(0, 5), st.floats(0.1, 4), st.integers(1, 20))
def test_frechet_of_two_gaussians(mean, scale, d):
    zero, one = np.zeros(d), np.eye(d)
    assert frechet(zero, one, zero + mean, one * scale**2) == pytest.approx(
        d * (mean**2 + (1 - scale) ** 2), abs=1e-9
    )


def test_frechet_of_many_draws_is_that_of_the_gaussians():
    draw = np.random.default_rng(0).normal(size=(20_000, 16))
    found = frechet(*moments(2 * draw + 1, "a"), np.zeros(16), np.eye(16))
    assert found == pytest.approx(16 + 16, rel=0.01)


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(2, 12), st.integers(1, 8)), elements=st.floats(-3, 3, width=16)
    ),
    st.floats(-3, 3),
)
def test_frechet_of_equal_sets_is_zero_and_of_moved_ones_the_square(rows, by):
    mean, cov = moments(rows, "rows")
    # Of singular covariances the root is exact to the root of a rounding error: 1.5e-8 of a trace of up to 200.
    assert frechet(mean, cov, mean, cov) == pytest.approx(0, abs=1e-5)
    moved = mean + by
    assert frechet(moved, cov, mean, cov) == pytest.approx(by**2 * len(mean), abs=1e-5)


def test_mmd_by_hand():
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    # (xy + 1)^3: within x k(0, 1) = 1, within y k(2, 3) = 343; across 1, 1, 27, 64.
    assert mmd.unbiased(cubic, x, y) == pytest.approx(1 + 343 - 2 * 93 / 4)
    # exp(-d^2 / 200), the pairs with themselves included; across the squares are 4, 9, 1, 4.
    k = {d: np.exp(-d / 200) for d in (0, 1, 4, 9)}
    expected = 2 * (k[0] + k[1]) / 2 - 2 * (2 * k[4] + k[9] + k[1]) / 4
    assert mmd.biased(gaussian, x, y) == pytest.approx(expected)


def test_mmd_of_two_gaussians():
    # E k = (s² / (s² + 2 v))^(d/2) exp(-|m|² / (2 (s² + 2 v))) for x - y ~ N(m, 2 v), s = 10
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 2, (3000, 2)), rng.normal(0, 2, (3000, 2)) + np.array([3, 4])
    expected = 2 * 100 / 108 * (1 - np.exp(-25 / 216))
    assert mmd.unbiased(gaussian, x, y) == pytest.approx(expected, rel=0.06)
    assert mmd.biased(gaussian, x, x) == pytest.approx(0, abs=1e-12)


def test_large_sets_are_taken_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(23, 3)), rng.normal(size=(31, 3)) + 1
    whole = mmd.unbiased(cubic, x, y), mmd.biased(gaussian, x, y), mmd.influence(cubic, x, y)
    monkeypatch.setattr(mmd, "_CELLS", 70)
    parts = mmd.unbiased(cubic, x, y), mmd.biased(gaussian, x, y), mmd.influence(cubic, x, y)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other)


# ---- intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fid", "kid", "cmmd"])
def test_the_interval_holds_the_expected_value_as_often_as_it_says(name):
    """The value expected at this number of images, against this reference, over 200 draws."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(400, 6))
    mean, cov = moments(y, "y")
    values, intervals = [], []
    for _ in range(200):
        x = np.repeat(1.2 * rng.normal(size=(60, 6)) + 0.3, 2, 0) + 0.1 * rng.normal(size=(120, 6))
        prompts = [str(i // 2) for i in range(120)]
        if name == "fid":
            values.append(frechet(*moments(x, "x"), mean, cov))
            intervals.append(influence_interval(values[-1], influence(x, mean, cov), prompts))
        else:
            kernel, estimate = (cubic, mmd.unbiased) if name == "kid" else (gaussian, mmd.biased)
            values.append(estimate(kernel, x, y))
            intervals.append(influence_interval(values[-1], mmd.influence(kernel, x, y), prompts))
    held = np.mean([i.low <= np.mean(values) <= i.high for i in intervals])
    assert 0.90 <= held <= 0.995
    width = np.mean([i.high - i.low for i in intervals])
    assert 0.9 < width / (2 * 1.96 * np.std(values)) < 1.4


@pytest.mark.parametrize("name", ["fid", "kid", "cmmd"])
def test_two_models_on_the_same_prompts_are_paired(name):
    """Their shares by image differ as the distances themselves do over 150 draws, far less than unpaired."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(300, 5))
    differences, pairs, alone = [], [], []
    for _ in range(150):
        x = 1.2 * rng.normal(size=(80, 5)) + 0.3
        values, shares = [], []
        for z in (x, x + 0.15 * rng.normal(size=x.shape) + 0.1):
            if name == "fid":
                values.append(frechet(*moments(z, "z"), *moments(y, "y")))
                shares.append(values[-1] + influence(z, *moments(y, "y")))
            else:
                kernel, estimate = (cubic, mmd.unbiased) if name == "kid" else (gaussian, mmd.biased)
                values.append(estimate(kernel, z, y))
                shares.append(values[-1] + mmd.influence(kernel, z, y))
        one, other = (dict(enumerate(map(float, share))) for share in shares)
        pairs.append(paired_difference(other, one))
        assert pairs[-1].value == pytest.approx(values[1] - values[0])
        differences.append(values[1] - values[0])
        alone.append(values[0])
    held = np.mean([pair.low <= np.mean(differences) <= pair.high for pair in pairs])
    assert 0.88 <= held <= 0.995
    assert np.mean([p.high - p.low for p in pairs]) < 0.75 * 2 * 1.96 * 2**0.5 * np.std(alone)


# ---- what they compare with -----------------------------------------------------------------------------------


def metrics(tiny, tiny_clip):
    return FID(**tiny), KID(**tiny), CMMD(model=tiny_clip, device="cpu")


@few
def test_they_are_metrics(tiny, tiny_clip, two_sets):
    for metric in metrics(tiny, tiny_clip):
        assert isinstance(metric, Metric) and metric.prompts == ("quality",) and metric.direction == "down"
        score, same = metric.measure(*two_sets), metric.measure(two_sets[0], two_sets[0])
        assert abs(same.value) < 0.05 * score.value
        assert score.interval.how == "delta method by prompt"


@few
@pytest.mark.parametrize("kind", ["imagefolder", "plain", "features.safetensors", "features.npz"])
def test_references_are_the_same_however_they_come(tiny, tiny_clip, two_sets, tmp_path, kind):
    samples, real = two_sets
    where = tmp_path / kind
    if kind == "imagefolder":
        where = real.folder
    elif kind == "plain":
        where.mkdir()
        for sample in real:
            Image.open(sample.path).save(where / f"{sample.prompt.id}.png", compress_level=1)
    else:
        images = [np.asarray(Image.open(s.path)) for s in sorted(real, key=lambda s: s.prompt.id)]
        rows = ClipImages(**tiny["extractor_settings"]).features(images)
        save_file({"features": rows}, where) if kind.endswith("rs") else np.savez(where, features=rows)
    for metric in metrics(tiny, tiny_clip):
        expected = metric.measure(samples, real)
        named = build(type(metric), {**vars(metric), "reference": str(where)})
        found = named.measure(samples, None)
        assert found.value == pytest.approx(expected.value, rel=1e-5)
        assert next(iter(found.parts)).endswith(where.name) and next(iter(found.parts.values())) == 50


@few
@pytest.mark.parametrize("names", [("mean", "cov"), ("mu", "sigma")])
def test_statistics_from_a_file(tiny, two_sets, tmp_path, names):
    samples, real = two_sets
    rows = ClipImages(**tiny["extractor_settings"]).features([np.asarray(Image.open(s.path)) for s in real])
    arrays = dict(zip(names, moments(rows, "real"), strict=True))
    np.savez(tmp_path / "real.npz", **arrays)
    found = FID(**tiny, reference=str(tmp_path / "real.npz")).measure(samples)
    assert found.value == pytest.approx(FID(**tiny).measure(*two_sets).value, rel=1e-6)
    assert found.parts["images of the reference real.npz"] == 0
    save_file({**arrays, "n": np.array([50])}, tmp_path / "real.safetensors")
    found = FID(**tiny, reference=str(tmp_path / "real.safetensors")).measure(samples)
    assert found.parts["images of the reference real.safetensors"] == 50
    with pytest.raises(InvalidInput, match="kid compares features, and 'real.npz' holds only"):
        KID(**tiny, reference=str(tmp_path / "real.npz")).measure(samples)


def test_files_that_are_no_reference(tiny, two_sets, tmp_path):
    square = np.eye(24)
    contents = {
        "a.npz": ({"mean": np.zeros(24)}, "needs 'features'.*it has mean"),
        "b.npz": ({"mean": np.zeros(24), "cov": np.eye(3)}, "needs 'features'"),
        "c.npz": ({"features": np.zeros((3, 5))}, "have 5 components and those of the images 24"),
        "d.npz": ({"mean": np.zeros(5), "cov": np.eye(5)}, "have 5 components"),
        "e.npz": ({"features": np.full((3, 24), np.nan)}, "not finite"),
        "f.npz": ({"features": square[:1]}, "two or more in each, got 1"),
        "g.txt": (None, "safetensors or .npz"),
        "h.npz": (None, "is no file of features"),
        "i.safetensors": (None, "is no file of features"),
    }
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(b"text")
        if content is not None:
            np.savez(tmp_path / name, **content)
        with pytest.raises(InvalidInput, match=message), warnings.catch_warnings():
            FID(**tiny, reference=str(tmp_path / name)).measure(two_sets[0])
    np.savez(tmp_path / "pickle.npz", features=np.array([{"a": 1}], object))
    with pytest.raises(InvalidInput, match="is no file of features"):
        FID(**tiny, reference=str(tmp_path / "pickle.npz")).measure(two_sets[0])


@pytest.mark.parametrize("source", ["/no/such/folder", "nothing", "./owner/name"])
def test_a_reference_that_is_nowhere(tiny, two_sets, source):
    with pytest.raises(InvalidInput, match=f"'{source}' is no folder, no file and no data set"):
        KID(**tiny, reference=source).measure(two_sets[0])


@pytest.fixture
def hub(tmp_path, monkeypatch, pictures, png):
    """Return a Hub with a data set of 12 images in two Parquet files, and the images."""
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("huggingface_hub")
    from pyarrow import parquet

    from unlearn_core.testing.hub_server import HubServer

    images, folder = pictures(12, seed=3), tmp_path / "repo"
    (folder / "data").mkdir(parents=True)
    for name, part in (("a", images[:7]), ("b", images[7:])):
        cells = [{"bytes": png(image), "path": None} for image in part]
        table = pa.table({"caption": ["x"] * len(part), "image": cells})
        parquet.write_table(table, folder / f"data/{name}.parquet", row_group_size=3)
    parquet.write_table(pa.table({"caption": ["x"]}), folder / "data/captions.parquet")
    with HubServer({"datasets/owner/name": folder}) as server:
        for constant, value in server.constants.items():
            monkeypatch.setattr(constant, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server, images


@few
def test_a_data_set_of_the_hub(tiny, two_sets, hub, sample_set):
    server, images = hub
    expected = FID(**tiny).measure(two_sets[0], sample_set(images))
    metric = FID(**tiny, reference="owner/name@main:data/[ab].parquet")
    found = metric.measure(two_sets[0])
    assert found.value == pytest.approx(expected.value, rel=1e-6)
    (name, count), _ = found.parts.items()
    assert "owner/name@" in name and count == 12
    with pytest.raises(InvalidInput, match="captions.parquet' has no column of images"):
        FID(**tiny, reference="owner/name").measure(two_sets[0])
    server.fail("/main", status=404, code="RepoNotFound")
    with pytest.raises(Unavailable, match="cannot fetch the reference 'owner/other'"):
        FID(**tiny, reference="owner/other").measure(two_sets[0])


def test_the_hub_without_its_extra(tiny, two_sets, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"unlearn-metrics\[hub\]"):
        FID(**tiny, reference="owner/name").measure(two_sets[0])


@few
def test_the_order_in_which_images_were_made_changes_nothing(tiny, tiny_clip, sample_set, pictures):
    images, texts = pictures(30), [f"text {i % 9}" for i in range(30)]
    real = sample_set(pictures(30, seed=1))
    rows = list(sample_set(images, texts))
    again = sample_set(images[::-1], [row.prompt for row in rows[::-1]])
    for metric in (*metrics(tiny, tiny_clip), KID(**tiny, subset_size=7)):
        one, other = metric.measure(sample_set(images, texts), real), metric.measure(again, real)
        assert (one.value, one.interval.low) == pytest.approx((other.value, other.interval.low), rel=1e-9)


# ---- bad input ------------------------------------------------------------------------------------------------


def test_few_images_are_a_warning(tiny, two_sets):
    with pytest.warns(UnlearnWarning, match="fid of 40 images against 50: below 2,048"):
        FID(**tiny).measure(*two_sets)


def test_no_number_without_two_images_or_a_reference(tiny, tiny_clip, sample_set, pictures, two_sets):
    one = sample_set(pictures(1))
    for metric in metrics(tiny, tiny_clip):
        with pytest.raises(InvalidInput, match="two or more images, and can read 1"):
            metric.measure(one, two_sets[1])
        with pytest.raises(InvalidInput, match="compares with other images: write reference="):
            metric.measure(two_sets[0])
        with pytest.raises(InvalidInput, match="rates images of the group 'quality'"):
            metric.measure(two_sets[0], two_sets[1].select(group="target"))
    with pytest.raises(InvalidInput, match="subsets of 41 images"):
        KID(**tiny, subset_size=41).measure(*two_sets)


@few
def test_an_image_that_cannot_be_read_is_counted(tiny, two_sets, damage):
    samples = damage(two_sets[0], 5)
    with pytest.warns(UnlearnWarning, match="left out"):
        score = KID(**tiny).measure(samples, two_sets[1])
    assert (score.n_scored, score.n_unscored) == (39, 1)
    assert score.reasons == {"the image cannot be read": 1}


def test_an_unknown_extractor_is_known_at_once():
    for metric in (FID, KID):
        with pytest.raises(InvalidInput, match="unknown extractor 'incepton'; did you mean 'inception'"):
            metric(extractor="incepton")
