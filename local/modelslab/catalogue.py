"""The models the simulator knows, with the shape of request each wants.

Source: the schemas in ModelsLab's Python SDK, its model pages, and the ids that other projects call. None of it was
checked against the running service; the live list is dynamic.
"""

from dataclasses import dataclass

COMMON_RATIOS = frozenset({"1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9"})
_IMAGEN = frozenset({"1:1", "3:4", "4:3", "9:16", "16:9"})
_GEN4 = frozenset({"16:9", "9:16", "1:1", "85:48", "4:3", "3:4", "113:48", "88:38", "7:3", "1920:1080", "1080:1920"})
_KONTEXT = COMMON_RATIOS | {"9:21"}


@dataclass(frozen=True, slots=True)
class Model:
    """What a model takes. `ratios` empty: it takes no aspect_ratio at all. `sizes`: it needs width and height.
    `images`: how many reference pictures it takes at most; 0: it draws from words alone.
    """

    text: bool = True
    images: int = 0
    ratios: frozenset[str] = COMMON_RATIOS
    ratio_required: bool = False
    sizes: bool = False


_PROMPT_ONLY = Model(ratios=frozenset())
_IMAGEN4 = Model(ratios=_IMAGEN, ratio_required=True)

MODELS: dict[str, Model] = {
    "imagen-3": _PROMPT_ONLY,
    "imagen-4": _IMAGEN4,
    "imagen-4.0-fast-generate": _IMAGEN4,
    "imagen-4.0-ultra": _IMAGEN4,
    "nano-banana-t2i": _PROMPT_ONLY,
    "nano-banana": Model(text=False, images=2),
    "nano-banana-2": Model(images=2),
    "nano-banana-pro": Model(images=14),
    "gen4_image": Model(ratios=_GEN4, ratio_required=True),
    "gen4_image_turbo": Model(text=False, images=2, ratios=_GEN4),
    "seedream-t2i": Model(ratios=frozenset(), sizes=True),
    "seedream-4": Model(ratio_required=True),
    "seedream-4.5": Model(ratio_required=True),
    "seedream-5.0-lite": Model(),
    "seedream-4.0-i2i": Model(text=False, images=10),
    "seedream-4.5-i2i": Model(text=False, images=10),
    "seededit-i2i": Model(text=False, images=10),
    "flux-2-pro": Model(images=10, sizes=True),
    "flux-kontext-pro": Model(images=1, ratios=_KONTEXT),
    "flux": Model(),
    "midjourney": Model(),
    "sdxl": Model(),
    "gemini-3.1-t2i": Model(),
    "gemini-3.1-i2i": Model(text=False, images=10),
    "grok-imagine-image-i2i": Model(text=False, images=1),
    "qwen-image-2512": Model(),
    "gpt-image-1.5": Model(),
}
