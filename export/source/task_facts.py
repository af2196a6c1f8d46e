"""What a model's files say beside its weights: how pictures are prepared, and where generated text ends."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from export.source.model_folder import ModelFolder
from hetlora.errors import ModelNotExportable
from hetlora.manifest import GenerationInfo, ImageInfo, Task, has_decoder, reads_images


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """The classes, how a picture is prepared, and how a text ends; what the task has none of is empty."""

    labels: tuple[str, ...]
    image: ImageInfo | None
    generation: GenerationInfo | None


def task_facts(
    folder: ModelFolder, task: Task, *, labels: Iterable[str], vocabulary: int | None
) -> TaskFacts:
    """What the manifest says of a task; `labels` are those asked for, `vocabulary` of a model that has one.

    Raises:
        ModelNotExportable: the model's files say what cannot be.
    """
    if reads_images(task):
        return TaskFacts(image_labels(folder), image_info(folder), None)
    if vocabulary is None:
        return TaskFacts(tuple(labels), None, None)
    generation = generation_info(folder, vocabulary, has_decoder_of_its_own=has_decoder(task))
    return TaskFacts((), None, generation)


def image_info(folder: ModelFolder) -> ImageInfo:
    """Mean and deviation of the channels, from preprocessor_config.json; a half each where it names none.

    Raises:
        ModelNotExportable: what it names is not a number for each channel.
    """
    found = folder.read_json("preprocessor_config.json")
    channels = int(getattr(folder.config, "num_channels", 3))
    half = [0.5] * channels
    mean, std = found.get("image_mean", half), found.get("image_std", half)
    if not _are_numbers(mean, channels) or not _are_numbers(std, channels) or min(std) <= 0:
        raise ModelNotExportable(
            "preprocessor_config.json does not say how pictures are scaled",
            got=f"image_mean {mean}, image_std {std}",
            expected=f"{channels} numbers each, image_std above 0",
        )
    return ImageInfo(mean=tuple(map(float, mean)), std=tuple(map(float, std)))


def _are_numbers(found: object, count: int) -> bool:
    if not isinstance(found, list) or len(found) != count:
        return False
    return all(type(value) in (int, float) and math.isfinite(value) for value in found)


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
    """What begins and ends a text, from generation_config.json or else from config.json.

    Raises:
        ModelNotExportable: it ends with what is no token.
    """
    found = folder.read_json("generation_config.json").get("eos_token_id", folder.config.eos_token_id)
    ends = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(end) is int and 0 <= end < vocabulary for end in ends):
        raise ModelNotExportable(
            "the model's configuration names no token that ends a text",
            got=f"eos_token_id {found!r}",
            expected=f"tokens from 0 to {vocabulary - 1}",
        )
    return GenerationInfo(
        vocabulary=vocabulary,
        eos_token_ids=tuple(ends),
        decoder_start_token_id=folder.config.decoder_start_token_id if has_decoder_of_its_own else None,
    )
