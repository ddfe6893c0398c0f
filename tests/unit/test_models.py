"""The catalogue of models: what each is sent, and how a wrong file is refused."""

from pathlib import Path

import pytest

from consumer.models import TEXT_TO_IMAGE, Catalogue, CatalogueError, Model
from schemas.words import ASPECT_RATIOS, Tier

GOOD = """
[models.a]
shape = "prompt"
price_usd = 0.1
prompt_limit = 500
seconds = 5
[models.b]
shape = "size"
sides = [256, 768]
price_usd = 0.2
prompt_limit = 500
seconds = 5
path = "/api/v6/images/text2img"
[chains]
""" + "\n".join(f'{tier.value} = ["a", "b"]' for tier in Tier)


@pytest.fixture(scope="module")
def built_in() -> Catalogue:
    return Catalogue.load()


@pytest.mark.parametrize("tier", list(Tier))
def test_every_tier_has_two_models_or_more(built_in: Catalogue, tier: Tier) -> None:
    chain = built_in.chain(tier)
    assert len(chain) >= 2
    assert len({model.id for model in chain}) == len(chain)
    assert all(model.price_usd > 0 for model in chain)


@pytest.mark.parametrize("ratio", sorted(ASPECT_RATIOS.values()))
def test_every_model_takes_every_ratio(built_in: Catalogue, ratio: str) -> None:
    for model in built_in.models():
        body = model.payload("a tea party", ratio)
        assert (body["model_id"], body["prompt"]) == (model.id, "a tea party")
        assert "key" not in body
        if model.shape == "aspect_ratio":
            assert body["aspect_ratio"] in model.ratios
        if model.shape == "size":
            assert isinstance(body["width"], int)
            assert isinstance(body["height"], int)
            assert model.sides[0] <= min(body["width"], body["height"])
            assert max(body["width"], body["height"]) == model.sides[1]
            assert body["width"] % 8 == body["height"] % 8 == 0


SHAPES = [
    ("seedream-4", "21:9", {"aspect_ratio": "21:9"}),
    ("imagen-4", "16:9", {"aspect_ratio": "16:9"}),
    ("imagen-4", "21:9", {"aspect_ratio": "16:9"}),
    ("imagen-4", "3:2", {"aspect_ratio": "4:3"}),
    ("imagen-4", "2:3", {"aspect_ratio": "3:4"}),
    ("nano-banana-t2i", "16:9", {}),
    ("seedream-t2i", "1:1", {"width": 1024, "height": 1024}),
    ("seedream-t2i", "16:9", {"width": 1024, "height": 576}),
    ("seedream-t2i", "9:16", {"width": 576, "height": 1024}),
    ("seedream-t2i", "4:3", {"width": 1024, "height": 768}),
    ("seedream-t2i", "3:4", {"width": 768, "height": 1024}),
    ("seedream-t2i", "21:9", {"width": 1024, "height": 512}),
]


@pytest.mark.parametrize(("model_id", "ratio", "shape"), SHAPES)
def test_the_shape_of_each_request(built_in: Catalogue, model_id: str, ratio: str, shape: dict[str, object]) -> None:
    model = built_in.get(model_id)
    assert model is not None
    assert model.payload("p", ratio) == {"model_id": model_id, "prompt": "p", **shape}
    assert model.path == TEXT_TO_IMAGE


def test_a_file_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(GOOD)
    catalogue = Catalogue.load(path)
    assert [model.id for model in catalogue.chain(Tier.FREE)] == ["a", "b"]
    assert catalogue.chain(Tier.FREE)[1].path == "/api/v6/images/text2img"
    assert catalogue.get("seedream-4") is None


FAULTS = [
    ("[chains", "is not TOML"),
    ("", "models: Field required; chains: Field required"),
    ("models = 3\nchains = {}", "models: Input should be a valid dictionary"),
    (GOOD.replace('free = ["a", "b"]', 'free = ["a"]'), "chains.free: Tuple should have at least 2 items"),
    (GOOD.replace('free = ["a", "b"]', ""), "chains.free is missing"),
    (GOOD.replace('free = ["a", "b"]', 'free = ["a", "x"]'), "chains.free names 'x', which is no model"),
    (GOOD.replace('free = ["a", "b"]', 'free = ["a", "a"]'), "chains.free names a model twice"),
    (GOOD + '\ngold = ["a", "b"]', "chains.gold: Input should be 'free'"),
    (GOOD.replace('"prompt"', '"cube"'), "models.a.shape: Input should be 'aspect_ratio', 'size' or 'prompt'"),
    (GOOD.replace('"prompt"', '"aspect_ratio"'), "models.a: shape aspect_ratio needs ratios"),
    (GOOD.replace("[256, 768]", "[256, 770]"), "models.b: sides must be [smallest, largest], both divisible by 8"),
    (GOOD.replace("[256, 768]", "[768, 256]"), "models.b: sides must be"),
    (GOOD.replace("price_usd = 0.1", "price_usd = -1"), "models.a.price_usd: Input should be greater than"),
    (GOOD.replace("price_usd = 0.1", "price = 1"), "models.a.price: Extra inputs are not permitted"),
    (GOOD.replace('"/api/v6/images/text2img"', '"images?x=1"'), "models.b.path"),
]


@pytest.mark.parametrize(("text", "fault"), FAULTS)
def test_a_wrong_file_is_refused_with_its_faults(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(CatalogueError) as caught:
        Catalogue.load(path)
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(GOOD.replace("price_usd = 0.1", "price_usd = -1").replace("[256, 768]", "[1]"))
    with pytest.raises(CatalogueError, match=r"models\.a\.price_usd.*models\.b\.sides"):
        Catalogue.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"cannot read the models' file .*gone\.toml"):
        Catalogue.load(tmp_path / "gone.toml")


def test_a_model_cannot_be_changed() -> None:
    model = Model(id="m", shape="prompt", price_usd=1, prompt_limit=100, seconds=1)
    with pytest.raises(ValueError, match="frozen"):
        model.price_usd = 2
