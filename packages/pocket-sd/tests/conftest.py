"""Everything is loaded from the package, and nothing may reach the network."""

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """For these tests alone: other packages' tests talk to a loopback Hub in the same process."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def pipe():
    """The pipeline, loaded once."""
    from pocket_sd import drawing

    return drawing.pipeline()


@pytest.fixture(scope="session")
def judge():
    import pocket_sd

    return pocket_sd.judge()


@pytest.fixture(scope="session")
def cells():
    """Two (object, style, background) of every object: one plain, one in a style."""
    from pocket_sd.words import BACKGROUNDS, OBJECTS, OWN_BACKGROUND, STYLES

    styles, backgrounds = list(STYLES), list(BACKGROUNDS)
    found = []
    for i, name in enumerate(OBJECTS):
        style = styles[i % len(styles)]
        found.append((name, None, backgrounds[i % len(backgrounds)]))
        found.append(
            (name, style, None if style in OWN_BACKGROUND else backgrounds[(i + 3) % len(backgrounds)])
        )
    return found


@pytest.fixture(scope="session")
def drawn(pipe, cells):
    """The pictures of `cells`, seeds 5000 to 5079; no row of the committed record."""
    from pocket_sd import drawing
    from pocket_sd.words import caption

    return drawing.draw([caption(*cell) for cell in cells], range(5000, 5000 + len(cells)), pipe=pipe)
