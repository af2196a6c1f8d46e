"""What a model's files say beside its weights: how pictures are prepared, and where generated text ends."""

from __future__ import annotations

from export.source.model_folder import ModelFolder
from hetlora.errors import ModelNotExportable
from hetlora.manifest import GenerationInfo, ImageInfo


def image_info(folder: ModelFolder) -> ImageInfo:
    """Mean and deviation of the channels, from preprocessor_config.json; a half each where it names none."""
    found = folder.read_json("preprocessor_config.json")
    channels = int(getattr(folder.config, "num_channels", 3))
    half = (0.5,) * channels
    return ImageInfo(
        mean=tuple(map(float, found.get("image_mean", half))),
        std=tuple(map(float, found.get("image_std", half))),
    )


def image_labels(folder: ModelFolder) -> tuple[str, ...]:
    """The classes that the model's own head tells apart, in the order of its logits.

    Raises:
        ModelNotExportable: fewer than two, or two of one name.
    """
    names = folder.config.id2label or {}
    labels = tuple(str(names[number]) for number in sorted(names))
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ModelNotExportable(
            "the model's classes cannot be told apart", got=labels[:5], expected="id2label with unique names"
        )
    return labels


def generation_info(folder: ModelFolder, vocabulary: int, *, has_decoder_of_its_own: bool) -> GenerationInfo:
    """What begins and ends a text, from generation_config.json or else from config.json."""
    found = folder.read_json("generation_config.json").get("eos_token_id", folder.config.eos_token_id)
    ends = found if isinstance(found, list) else [] if found is None else [found]
    return GenerationInfo(
        vocabulary=vocabulary,
        eos_token_ids=tuple(ends),
        decoder_start_token_id=folder.config.decoder_start_token_id if has_decoder_of_its_own else None,
    )
