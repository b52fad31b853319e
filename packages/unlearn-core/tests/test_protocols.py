import pytest

from unlearn_core.concept import Concept
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.protocols import Attack, Detector, Method, Metric, Technique, TextToImage
from unlearn_core.samples import SampleSet
from unlearn_core.score import Score, wilson


class Rename:
    """Forgets words: the model is a tuple of words."""

    def apply(self, model, concepts, *, seed, progress=None):
        return tuple(word for word in model if word not in {n for c in concepts for n in c.names})


class Halve:
    def steps(self, model, split, *, seed):
        for _ in range(2):
            model /= 2
            yield model


class Painter:
    fingerprint = "painter-1"

    def generate(self, prompts):
        return [[[(prompt.seed % 256, 0, 0)]] for prompt in prompts]


class Red:
    revision = "1"

    def presence(self, images):
        return [image[0][0][0] / 255 for image in images]


class Shout:
    def craft(self, model, prompts, *, seed, progress=None):
        rows = [
            Prompt(id=f"{p.id}/shout", text=p.text.upper(), seed=p.seed, group="adversarial", origin=p.id)
            for p in prompts
        ]
        return PromptSet(name="shout", rows=rows)


class Drawn:
    prompts = ("pets",)

    def measure(self, samples, reference=None):
        n = len(samples)
        return Score(metric="drawn", value=1.0, direction="up", n_scored=n, interval=wilson(n, n))


FAKES = {Technique: Rename, Method: Halve, TextToImage: Painter, Detector: Red, Attack: Shout, Metric: Drawn}


@pytest.mark.parametrize("protocol", FAKES)
def test_each_protocol_knows_its_own_and_no_other(protocol):
    assert [kind for kind, fake in FAKES.items() if isinstance(fake(), protocol)] == [protocol]
    assert not isinstance(object(), protocol)


def test_the_nouns_fit_together(tmp_path, png):
    pets = PromptSet(name="pets", rows=[Prompt(id="a", text="a dog", seed=3, group="target", concept="dog")])
    loud = Shout().craft(None, pets, seed=0)
    samples = SampleSet(tmp_path / "images")
    for prompt, image in zip(loud, Painter().generate(loud.rows), strict=True):
        samples.add(prompt, png(*image[0][0]))
    score = Drawn().measure(samples)
    assert score.n_scored == 1
    assert [s.prompt.origin for s in samples] == ["a"]
    assert Rename().apply(("a", "dog", "runs"), [Concept(name="dog")], seed=0) == ("a", "runs")
    assert list(Halve().steps(8, None, seed=0)) == [4, 2]
