"""The catalogue of models: what each is sent, and how a wrong file is refused."""

from pathlib import Path

import pytest

from consumer.models import IMAGE_TO_IMAGE, TEXT_TO_IMAGE, Catalogue, CatalogueError, Model
from local.modelslab import orders
from local.modelslab.catalogue import MODELS
from schemas.words import ASPECT_RATIOS, Tier

_CHAINS = "\n".join(f'{tier.value} = ["a", "b"]' for tier in Tier)
_REFERENCE_CHAINS = "\n".join(f'{tier.value} = ["c", "d"]' for tier in Tier)
GOOD = f"""
ratios = ["1:1", "16:9"]
[models.a]
shape = "prompt"
price_usd = 0.1
prompt_limit = 500
seconds = 5
longest = 50
[models.b]
shape = "size"
sides = [256, 768]
price_usd = 0.2
prompt_limit = 500
seconds = 6
longest = 60
endpoint = "/api/v6/images/text2img"
[models.c]
images = "one"
shape = "prompt"
price_usd = 0.3
prompt_limit = 500
seconds = 7
longest = 70
[models.d]
images = "list"
most_images = 3
shape = "aspect_ratio"
ratios = ["1:1", "16:9"]
price_usd = 0.3
prompt_limit = 500
seconds = 8
longest = 80
[reference_chains]
{_REFERENCE_CHAINS}
[chains]
{_CHAINS}"""
ALICE, HARE, HATTER = (f"https://cdn.test/{name}.png" for name in ("alice", "hare", "hatter"))


@pytest.fixture(scope="module")
def built_in() -> Catalogue:
    return Catalogue.load()


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize("references", [False, True])
def test_every_tier_has_two_models_or_more(built_in: Catalogue, tier: Tier, references: bool) -> None:
    chain = built_in.chain(tier, references=references)
    assert len(chain) >= 2
    assert len({model.id for model in chain}) == len(chain)
    assert all(model.price_usd > 0 for model in chain)
    assert {model.images is not None for model in chain} == {references}
    assert {model.path for model in chain} == {IMAGE_TO_IMAGE if references else TEXT_TO_IMAGE}


@pytest.mark.parametrize("ratio", sorted(set(ASPECT_RATIOS.values())))
def test_the_simulator_takes_every_request_in_the_form_it_has(built_in: Catalogue, ratio: str) -> None:
    for model in built_in.models():
        body = model.payload("a tea party", ratio, [ALICE, HARE] if model.images else [])
        order = orders.read(body, "image-to-image" if model.images else "text-to-image")
        assert order.references == (min(2, model.most_images) if model.images else 0)
        if model.shape != "prompt":
            across, down = (int(side) for side in ratio.split(":"))
            assert (order.width > order.height) == (across > down)
            assert (order.width < order.height) == (across < down)


@pytest.mark.parametrize("ratio", sorted(set(ASPECT_RATIOS.values())))
def test_every_model_takes_every_ratio(built_in: Catalogue, ratio: str) -> None:
    for model in built_in.models():
        body = model.payload("a tea party", ratio)
        assert (body["model_id"], body["prompt"]) == (model.provider_id or model.id, "a tea party")
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


REFERENCES = [
    ("seedream-4.0-i2i", 2, {"init_image": [ALICE, HARE]}),
    ("seedream-4.5-i2i", 12, {"init_image": [ALICE, HARE, HATTER] * 3 + [ALICE]}),
    ("seededit-i2i", 1, {"init_image": [ALICE]}),
    ("nano-banana", 1, {"init_image": ALICE}),
    ("nano-banana", 3, {"init_image": ALICE, "init_image_2": HARE}),
    ("nano-banana-pro-i2i", 2, {"aspect_ratio": "16:9", "init_image": [ALICE, HARE]}),
    ("flux-kontext-pro", 3, {"aspect_ratio": "16:9", "init_image": ALICE}),
]


@pytest.mark.parametrize(("name", "count", "shape"), REFERENCES)
def test_how_reference_pictures_are_given(built_in: Catalogue, name: str, count: int, shape: dict[str, object]) -> None:
    model = built_in.get(name)
    assert model is not None
    given = ([ALICE, HARE, HATTER] * 4)[:count]
    assert model.payload("p", "16:9", given) == {"model_id": model.provider_id or name, "prompt": "p", **shape}
    assert (model.provider_id or name) in MODELS
    assert model.path == IMAGE_TO_IMAGE


def test_a_model_that_draws_from_words_is_given_no_picture(built_in: Catalogue) -> None:
    model = built_in.get("nano-banana-pro")
    assert model is not None
    assert "init_image" not in model.payload("p", "1:1", [ALICE])


def test_how_long_a_job_may_take_before_it_is_late(built_in: Catalogue) -> None:
    assert all(model.longest >= 3 * model.seconds for model in built_in.models())
    assert built_in.longest("seedream-4") == 60
    # one that has left the file while its job was under way
    assert built_in.longest("retired") == 120


def test_a_file_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(GOOD)
    catalogue = Catalogue.load(path)
    assert [model.id for model in catalogue.chain(Tier.FREE)] == ["a", "b"]
    assert catalogue.chain(Tier.FREE)[1].path == "/api/v6/images/text2img"
    assert catalogue.get("seedream-4") is None


FAULTS = [
    ("[chains", "is not TOML"),
    ("", "ratios: Field required; models: Field required; chains: Field required; reference_chains: Field required"),
    ("ratios = ['1:1']\nmodels = 3\nchains = {}\nreference_chains = {}", "models: Input should be a valid dictionary"),
    (GOOD.replace('free = ["a", "b"]', 'free = ["a"]'), "chains.free: Tuple should have at least 2 items"),
    (GOOD.replace('free = ["a", "b"]', ""), "chains.free is missing"),
    (GOOD.replace('free = ["a", "b"]', 'free = ["a", "x"]'), "chains.free names 'x', which is no model"),
    (GOOD.replace('free = ["a", "b"]', 'free = ["a", "a"]'), "chains.free names a model twice"),
    (GOOD.replace('free = ["a", "b"]', 'free = ["a", "c"]'), "chains.free names 'c', which needs reference pictures"),
    (GOOD.replace('free = ["c", "d"]', 'free = ["c", "b"]'), "names 'b', which takes no reference pictures"),
    (GOOD.replace('free = ["c", "d"]', 'free = ["c"]'), "reference_chains.free: Tuple should have at least 2 items"),
    (GOOD.replace('free = ["c", "d"]', ""), "reference_chains.free is missing"),
    (GOOD + '\ngold = ["a", "b"]', "chains.gold: Input should be 'free'"),
    (GOOD.replace('"prompt"', '"cube"'), "models.a.shape: Input should be 'aspect_ratio', 'size' or 'prompt'"),
    (GOOD.replace('"prompt"', '"aspect_ratio"'), "models.a: shape aspect_ratio needs ratios"),
    (GOOD.replace('"one"', '"two"'), "models.c.images: Input should be 'list', 'one' or 'numbered'"),
    (
        GOOD.replace('images = "list"', 'images = "one"'),
        'models.d: most_images above 1 needs images "list" or "numbered"',
    ),
    (GOOD.replace('["1:1", "16:9"]\nprice', '["1:1", "61:9"]\nprice'), "61:9 is not among the file's ratios"),
    (GOOD.replace('["1:1", "16:9"]\nprice', '["1:1", "wide"]\nprice'), "models.d.ratios.1: String should match"),
    (GOOD.replace("[256, 768]", "[256, 770]"), "models.b: sides must be [smallest, largest], both divisible by 8"),
    (GOOD.replace("[256, 768]", "[768, 256]"), "models.b: sides must be"),
    (GOOD.replace("price_usd = 0.1", "price_usd = -1"), "models.a.price_usd: Input should be greater than"),
    (GOOD.replace("price_usd = 0.1", "price_usd = nan"), "models.a.price_usd: Input should be a finite number"),
    (GOOD.replace("price_usd = 0.1\n", ""), "models.a.price_usd: Field required"),
    (GOOD.replace("price_usd = 0.1", "price = 1"), "models.a.price: Extra inputs are not permitted"),
    (GOOD.replace("seconds = 5\n", ""), "models.a.seconds: Field required"),
    (GOOD.replace("seconds = 5\n", "seconds = 0\n"), "models.a.seconds: Input should be greater than 0"),
    (GOOD.replace("longest = 50\n", "longest = 2\n"), "models.a: longest must not be below seconds"),
    (GOOD.replace("prompt_limit = 500", "prompt_limit = 5"), "models.a.prompt_limit: Input should be greater"),
    (GOOD.replace('"/api/v6/images/text2img"', '"images?x=1"'), "models.b.endpoint"),
]


@pytest.mark.parametrize(("text", "fault"), FAULTS)
def test_a_wrong_file_is_refused_with_its_faults(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(CatalogueError) as caught:
        Catalogue.load(path)
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(GOOD.replace("price_usd = 0.1", "price_usd = -1").replace("[256, 768]", "[1]"))
    with pytest.raises(CatalogueError, match=r"models\.a\.price_usd.*models\.b\.sides"):
        Catalogue.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"cannot read the models' file .*gone\.toml"):
        Catalogue.load(tmp_path / "gone.toml")


def test_a_model_cannot_be_changed() -> None:
    model = Model(id="m", shape="prompt", price_usd=1, prompt_limit=100, seconds=1, longest=1)
    with pytest.raises(ValueError, match="frozen"):
        model.price_usd = 2
