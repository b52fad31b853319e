"""Images as arrays, against NumPy and the definitions of the file formats."""

import hashlib
import io
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_metrics.images import batches, decode, decoded, read


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_rgb_is_read_as_it_is(image):
    found = decode(saved(Image.fromarray(image)), "x.png")
    assert found.dtype == np.uint8 and found.flags.writeable
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA"])
def test_other_modes_show_the_same_grey(mode):
    grey = np.full((4, 5, 3), 255, np.uint8)
    grey[1:3] = 0
    kind = "TIFF" if mode == "CMYK" else "PNG"
    np.testing.assert_array_equal(decode(saved(Image.fromarray(grey).convert(mode), kind), "x"), grey)


def test_transparent_parts_lie_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)  # black: opaque, half, not there
    rgba[0, :, 3] = 255, 128, 0
    np.testing.assert_array_equal(decode(saved(Image.fromarray(rgba)), "x")[0, :, 0], [0, 127, 255])
    palette = Image.new("P", (1, 1), 0)
    np.testing.assert_array_equal(decode(saved(palette, transparency=0), "x"), 255)


def test_sixteen_bits_are_scaled_not_cut_off():
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    # round(v * 255 / 65535), the PNG specification (section 13.12, linear scaling)
    np.testing.assert_array_equal(
        decode(saved(Image.fromarray(levels)), "x")[0, :, 0], [0, 0, 1, 1, 128, 255]
    )


def test_exif_orientation_is_obeyed():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to view"
    np.testing.assert_array_equal(decode(saved(Image.fromarray(image), exif=exif), "x"), np.rot90(image, -1))


@given(st.binary(max_size=300))
def test_what_is_no_image_is_invalid_input(data):
    with pytest.raises(InvalidInput, match="'x.png' is no image that can be read"):
        decode(data, "x.png")


@given(st.integers(1, 90))
def test_a_cut_png_never_yields_a_picture(percent):
    data = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)))
    with pytest.raises(InvalidInput, match="'x.png'"):
        decode(data[: len(data) * percent // 100], "x.png")


def test_values_without_a_range_are_refused():
    with pytest.raises(InvalidInput, match="floats"):
        decode(saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "x.tiff")
    with pytest.raises(InvalidInput, match="outside of 0 to 65535"):
        decode(saved(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"), "x.tiff")


def test_read_refuses_a_file_that_is_gone_or_another(sample_set, pictures, png):
    sample = next(iter(sample_set(pictures(1))))
    np.testing.assert_array_equal(read(sample), pictures(1)[0])
    sample.path.write_bytes(png(pictures(1, seed=1)[0]))
    with pytest.raises(InvalidInput, match="was changed"):
        read(sample)
    with pytest.raises(Unavailable, match=r"gone\.png"):
        read(replace(sample, path=sample.path.with_name("gone.png")))


@given(st.integers(1, 9), st.integers(0, 8))
def test_batches_hold_every_sample_in_order(n, count):
    loads = [lambda i=i: np.full((1, 1, 3), i, np.uint8) for i in range(count)]
    found = list(decoded(loads, n))
    assert [len(batch) for batch in found] == [n] * (count // n) + [count % n] * (count % n > 0)
    assert [int(image[0, 0, 0]) for batch in found for image in batch] == list(range(count))


def test_batches_leave_out_what_cannot_be_read_only_if_asked(sample_set, pictures, damage):
    images = pictures(5)
    samples = damage(sample_set(images), 1)
    unreadable = {}
    found = list(batches(samples, 2, unreadable))
    assert [[s.prompt.id for s in part] for part, _ in found] == [
        ["quality-0"], ["quality-2", "quality-3"], ["quality-4"],
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([i for _, i in found]), images[[0, 2, 3, 4]])
    assert list(unreadable) == ["quality-1"] and "quality-1.png" in unreadable["quality-1"]
    with pytest.raises(InvalidInput, match="quality-1"):
        list(batches(samples, 2))
    with pytest.raises(InvalidInput, match="at least one"):
        list(batches(samples, 0))


def test_the_next_batch_is_read_while_the_caller_works():
    started = [threading.Event() for _ in range(4)]
    loads = [lambda i=i: started[i].set() or np.zeros((1, 1, 3), np.uint8) for i in range(4)]
    reading = decoded(loads, 2)
    next(reading)
    assert started[2].wait(10) and started[3].wait(10)
    reading.close()


def test_a_sample_states_the_hash_of_its_file(sample_set, pictures):
    for sample in sample_set(pictures(2)):
        assert sample.sha256 == hashlib.sha256(sample.path.read_bytes()).hexdigest()
