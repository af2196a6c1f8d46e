"""PyTorch, transformers and PEFT as a device uses them: models without checkpoints, failures in our words.

The only file of the SDK that imports them, when they are first needed.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

from edge_sdk.units import MIB
from hetlora.adapter import Tensor
from hetlora.errors import BundleInvalid, DependencyMissing
from hetlora.pytorch_files import WeightMap, WeightPlace
from hetlora.tensors import factor_keys, lora_settings

_NOISY_LOGGERS: Final = ("transformers", "peft", "torchao", "torch.utils._pytree")
_AUTO_CLASSES: Final = {
    "text-classification": "AutoModel",
    "text-generation": "AutoModelForCausalLM",
    "image-classification": "AutoModelForImageClassification",
    "text2text-generation": "AutoModelForSeq2SeqLM",
}
# Whatever a configuration says: named outputs, plain arithmetic, nothing that is only kept.
_FIXED: Final = {
    "return_dict": True,
    "torchscript": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "use_cache": False,
    "reference_compile": False,  # of ModernBERT: a compiler at the first step
}
# It feeds no output that is trained, and no graph reads it: bundles do not have it.
_UNREAD: Final = "pooler."
# Masks and angles beside the weights, which a model makes itself: small in all that there are.
_OWN_BYTES: Final = 64 * MIB
_NO_MODEL: Final = "transformers cannot build the model of the configuration"
_NO_MEMORY: Final = ("can't allocate memory", "Cannot allocate memory")  # a processor's allocator; mmap
Built = TypeVar("Built")


@dataclass(frozen=True, slots=True)
class Libraries:
    """The modules, each as `import` gives it."""

    torch: Any
    auto: Any
    configs: Any
    peft: Any
    accelerate: Any


def import_libraries() -> Libraries:
    """PyTorch and what builds models on it.

    Raises:
        DependencyMissing: one of them is not installed, or they do not fit each other.
    """
    try:
        with _quiet():
            return Libraries(
                import_module("torch"),
                import_module("transformers.models.auto.modeling_auto"),
                import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING,
                import_module("peft"),
                import_module("accelerate"),
            )
    except ImportError as error:
        raise DependencyMissing(
            "PyTorch, transformers or PEFT cannot be imported",
            got=error,
            expected="pip install 'hetlora[edge-pytorch]'",
        ) from error


def mapped_weights(torch: Any, path: Path, weights: WeightMap) -> dict[str, Any]:
    """Each weight by its name, a view of the file: a page of it is in memory once it is read.

    Raises:
        BundleInvalid: the file cannot be mapped.
        MemoryError: there is no memory for it.
    """
    try:
        whole = torch.from_file(str(path), shared=False, size=size_of(path) // 4, dtype=torch.float32)
    except RuntimeError as error:
        if is_lack_of_memory(error):
            raise MemoryError(f"there is no memory for {path.name}") from error
        raise BundleInvalid(f"{path.name} cannot be mapped", got=type(error).__name__) from error
    return {name: view_of(whole, place) for name, place in weights.weights.items()}


def size_of(path: Path) -> int:
    """How many bytes a file of a bundle has.

    Raises:
        BundleInvalid: it is not there.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise BundleInvalid(f"{path.name} of the bundle cannot be read", got=error.strerror) from error


def view_of(whole: Any, place: WeightPlace) -> Any:
    """One tensor of a file of float32."""
    first = place.offset // 4
    return whole[first : first + place.size_bytes // 4].view(place.shape)


def build_frozen(
    libraries: Libraries, task: str, config: Mapping[str, Any], tensors: Mapping[str, Any], device: Any
) -> Any:
    """The model of a checked configuration over these weights, on a device, in evaluation mode.

    Raises:
        BundleInvalid: transformers cannot build it, or it has other weights than there are.
        MemoryError: there is no memory for it.
    """
    torch = libraries.torch
    auto_class = getattr(libraries.auto, _AUTO_CLASSES[task])
    kind = libraries.configs[config["model_type"]]

    def built() -> Any:
        told = kind.from_dict({**copy.deepcopy(dict(config)), **_FIXED})
        return auto_class.from_config(
            told, attn_implementation="eager", dtype=torch.float32, trust_remote_code=False
        )

    with _quiet():
        # First without any memory: what it would take must follow from weights that are there.
        with torch.device("meta"):
            plan = _or_refuse(built, _NO_MODEL)
        names = _names_of(plan, tensors)
        with libraries.accelerate.init_empty_weights(include_buffers=False):
            model = _or_refuse(built, _NO_MODEL)
    zero = torch.zeros((), device=device)
    state = {}
    for same, source in names.items():
        weight = zero.expand(plan.get_parameter(same[0]).shape) if source is None else tensors[source]
        state.update(dict.fromkeys(same, weight.to(device)))
    model.load_state_dict(state, strict=False, assign=True)
    return model.to(device).requires_grad_(False).eval()


def _or_refuse(build: Callable[[], Built], what: str) -> Built:
    try:
        return build()
    except Exception as error:  # the libraries raise whatever numbers that do not add up lead to
        if is_lack_of_memory(error):
            raise MemoryError("there is no memory for the model") from error
        raise BundleInvalid(what, got=f"{type(error).__name__}: {error}"[:300]) from error


def is_lack_of_memory(error: Exception) -> bool:
    """Whether PyTorch had no memory: a GPU's allocator has a class for it, a processor's only words."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in _NO_MEMORY)


def _names_of(plan: Any, tensors: Mapping[str, Any]) -> dict[tuple[str, ...], str | None]:
    """All names of each weight of a model, and the one that the bundle has it under; None for the unread."""
    state = {
        name: weight for name, weight in plan.state_dict(keep_vars=True).items() if weight.is_floating_point()
    }
    tied: dict[int, list[str]] = {}
    for name, weight in state.items():
        tied.setdefault(id(weight), []).append(name)
    names = {tuple(same): next((name for name in same if name in tensors), None) for same in tied.values()}
    absent = [same[0] for same, source in names.items() if source is None and not same[0].startswith(_UNREAD)]
    strange = sorted(tensors.keys() - state.keys())
    if absent or strange:
        raise BundleInvalid(
            "the model of the configuration has other weights than the bundle",
            got=f"{len(strange)} more, such as {strange[:2]}",
            expected=f"{len(absent)} others, such as {absent[:2]}",
        )
    for same, source in names.items():
        wanted = tuple(state[same[0]].shape)
        if source is not None and tuple(tensors[source].shape) != wanted:
            raise BundleInvalid(
                f"shape of weight {source}", got=tuple(tensors[source].shape), expected=wanted
            )
    own_bytes = sum(buffer.numel() * buffer.element_size() for buffer in plan.buffers())
    there = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if own_bytes > there + _OWN_BYTES:
        raise BundleInvalid(
            "the model keeps more beside its weights than these take",
            got=own_bytes,
            expected=f"up to {there}",
        )
    return names


def with_lora(libraries: Libraries, frozen: Any, ranks: Mapping[str, int], scaling: float) -> Any:
    """PEFT's model around a frozen one, with factors of these ranks, all above 0, by module name.

    Raises:
        BundleInvalid: PEFT finds no such layers.
        MemoryError: there is no memory for them.
    """

    def wrapped() -> Any:
        config = libraries.peft.LoraConfig(**lora_settings(ranks, scaling))
        return libraries.peft.get_peft_model(frozen, config)

    with _quiet():  # PEFT finds out by itself that a Conv1D lies transposed, and warns of it
        return _or_refuse(wrapped, "the model's layers cannot be adapted").eval()


def factors_of(adapted: Any, modules: Iterable[str]) -> dict[str, Any]:
    """The trained parameters of PEFT's model by PEFT key.

    Raises:
        BundleInvalid: they are not those of the modules.
    """
    found = {
        name.replace(".default.", "."): parameter
        for name, parameter in adapted.named_parameters()
        if parameter.requires_grad
    }
    wanted = {key for name in modules for key in factor_keys(name)}
    if found.keys() != wanted:
        raise BundleInvalid(
            "layers of the model are not those of the adapter",
            got=sorted(found.keys() - wanted)[:2],
            expected=sorted(wanted - found.keys())[:2],
        )
    return found


def to_array(tensor: Any) -> Tensor:
    """The numbers in float32, where they are if they are in memory."""
    numbers: Tensor = tensor.detach().float().cpu().numpy()
    return numbers


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Python warnings and log lines below ERROR."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
