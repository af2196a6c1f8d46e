"""A bundle's model in PyTorch under PEFT, with the head and the loss that its graphs have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np

from edge_sdk.runtimes.base import Factors
from edge_sdk.runtimes.feeds import Feeds
from edge_sdk.runtimes.pytorch_library import (
    build_frozen,
    factors_of,
    import_libraries,
    is_lack_of_memory,
    mapped_weights,
    size_of,
    to_array,
    with_lora,
)
from edge_sdk.runtimes.settings import capped_threads
from hetlora.adapter import Tensor
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DataError
from hetlora.graph_names import (
    ATTENTION_MASK,
    DECODER_INPUT_IDS,
    IGNORED_LABEL,
    INPUT_IDS,
    LABELS,
    LENGTH_EPSILON,
    LOGIT_SCALE,
)
from hetlora.manifest import Manifest, PytorchFiles, has_decoder
from hetlora.pytorch_files import (
    MAX_CONFIG_BYTES,
    MAX_WEIGHT_MAP_BYTES,
    WeightMap,
    parse_config,
    parse_weight_map,
)
from hetlora.tensors import factor_keys

_PROTOTYPES: Final = "prototypes"


class PytorchNetwork:
    """The model over its frozen weights; factors are given at each call, and may have other ranks each time.

    On the first GPU that PyTorch sees; else on the processor, where the weights are mapped from their file.
    `threads` limits PyTorch's threads in the whole process. Calls from several threads wait for each other:
    the factors stand in the model while it answers.

    Raises:
        DependencyMissing: PyTorch, transformers or PEFT is not installed.
        SettingsError: `threads` is below 1.
        BundleInvalid: the bundle has no files for PyTorch, or such as no model can be built from.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None) -> None:
        threads = capped_threads(threads)
        files = files_of(bundle.manifest)
        self._manifest = bundle.manifest
        self._libraries = import_libraries()
        torch = self._libraries.torch
        if threads is not None and threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._frozen, self._prototypes = self._built(bundle, files)
        self._model = self._frozen
        self._ranks: dict[str, int] = {}
        self._factors: dict[str, Any] = {}
        self._lock = Lock()

    def gradients(self, feeds: Feeds, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        """The mean loss of a labelled batch, and its gradients by PEFT key, float32.

        Raises:
            DataError: the model refuses the values of the batch.
            MemoryError: there is no memory for it.
        """
        with self._lock, in_our_words():
            self._take(factors)
            for parameter in self._factors.values():
                parameter.grad = None
            loss = self._loss(*self._scored(feeds))
            if self._factors:
                loss.backward()
            found = {key: to_array(own.grad) for key, own in self._factors.items()}
            return float(loss.detach()), {key: found.get(key, np.zeros_like(factors[key])) for key in factors}

    def evaluate(self, feeds: Feeds, factors: Factors) -> tuple[float, Tensor]:
        """The mean loss of a labelled batch, and its logits; errors as `gradients`."""
        with self._answering(factors):
            logits, labels = self._scored(feeds)
            return float(self._loss(logits, labels)), to_array(logits)

    def logits(self, feeds: Feeds, factors: Factors) -> Tensor:
        """The logits of a batch; errors as `gradients`."""
        with self._answering(factors):
            return to_array(self._answer(self._tensors(feeds)))

    def take_ranks(self, ranks: Mapping[str, int]) -> None:
        """Put PEFT's layers of these ranks beside those of the modules, by name; rank 0 is none.

        Raises:
            BundleInvalid: the model has no such layers.
        """
        trained = {name: rank for name, rank in ranks.items() if rank > 0}
        if trained == self._ranks:
            return
        if self._ranks:
            self._model.unload()  # in place: the frozen model has its own layers back
        self._model, self._factors, self._ranks = self._frozen, {}, {}
        if trained:
            scaling = self._manifest.adapter.scaling
            self._model = with_lora(self._libraries, self._frozen, trained, scaling)
            self._factors = factors_of(self._model, trained)
            self._ranks = trained

    def _take(self, factors: Factors) -> None:
        """Let the model stand under these factors."""
        torch, modules = self._libraries.torch, self._manifest.adapter.modules
        self.take_ranks({module.name: len(factors[factor_keys(module.name)[0]]) for module in modules})
        with torch.no_grad():
            for key, parameter in self._factors.items():
                parameter.copy_(torch.tensor(factors[key]))

    @contextmanager
    def _answering(self, factors: Factors) -> Iterator[None]:
        torch = self._libraries.torch
        with self._lock, in_our_words():
            self._take(factors)
            with torch.inference_mode():
                yield

    def _built(self, bundle: Bundle, files: PytorchFiles) -> tuple[Any, Any]:
        """The frozen model, and the prototypes of a classifier of text."""
        torch, task = self._libraries.torch, self._manifest.task
        base = bundle.path(self._manifest.graphs.base_weights)
        told = _read(bundle.path(files.weights), MAX_WEIGHT_MAP_BYTES)
        weights = parse_weight_map(told, task, base_bytes=size_of(base))
        config = parse_config(_read(bundle.path(files.config), MAX_CONFIG_BYTES), task, weights)
        tensors = mapped_weights(torch, base, _with_prototypes(weights))
        prototypes = tensors.pop(_PROTOTYPES, None)
        frozen = build_frozen(self._libraries, task, config, tensors, self.device)
        if prototypes is None:
            return frozen, None
        wanted = (len(self._manifest.labels), frozen.config.hidden_size)
        if tuple(prototypes.shape) != wanted:
            raise BundleInvalid("shape of the prototypes", got=tuple(prototypes.shape), expected=wanted)
        return frozen, prototypes.to(self.device)

    def _tensors(self, feeds: Feeds) -> dict[str, Any]:
        torch = self._libraries.torch
        return {name: torch.tensor(array, device=self.device) for name, array in feeds.items()}

    def _scored(self, feeds: Feeds) -> tuple[Any, Any]:
        """Logits, and the labels that say what they ought to be."""
        inputs = self._tensors(feeds)
        labels = inputs.pop(LABELS)
        if has_decoder(self._manifest.task):
            inputs[DECODER_INPUT_IDS] = self._model.prepare_decoder_input_ids_from_labels(labels)
        logits = self._answer(inputs)
        return logits, labels

    def _answer(self, inputs: dict[str, Any]) -> Any:
        if INPUT_IDS in inputs:
            words = self._model.get_input_embeddings().num_embeddings
            if int(inputs[INPUT_IDS].max()) >= words:  # a GPU would not recover from it
                raise DataError("tokens of a batch are out of range", expected=f"0 to {words - 1}")
        answer = self._model(**inputs)
        if self._prototypes is None:
            return answer.logits
        mask = inputs[ATTENTION_MASK].unsqueeze(-1).to(self._prototypes.dtype)
        pooled = (answer.last_hidden_state * mask).sum(dim=1)
        length = pooled.square().sum(dim=1, keepdim=True).add(LENGTH_EPSILON).sqrt()
        return LOGIT_SCALE * (pooled / length) @ self._prototypes.T

    def _loss(self, logits: Any, labels: Any) -> Any:
        """The mean cross entropy of what counts; 0 where nothing does."""
        if self._manifest.generates and not has_decoder(self._manifest.task):
            logits, labels = logits[:, :-1], labels[:, 1:]
        counts = labels != IGNORED_LABEL
        picked = logits.log_softmax(dim=-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return -(picked * counts).sum() / counts.sum().clamp(min=1)


@contextmanager
def in_our_words() -> Iterator[None]:
    """Turn what PyTorch raises over a batch into errors of ours.

    Raises:
        DataError: the model refuses the values of the batch.
        MemoryError: there is no memory for it.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if is_lack_of_memory(error):
            raise MemoryError("there is no memory for the batch") from error
        raise DataError(
            "the model refuses the batch", got=error, expected="token numbers that the model knows"
        ) from error


def files_of(manifest: Manifest) -> PytorchFiles:
    """The files of a bundle for PyTorch.

    Raises:
        BundleInvalid: it was exported without them, or its weights are not in float32.
    """
    if manifest.pytorch is None:
        raise BundleInvalid("the bundle has no files for PyTorch", expected="one exported with them")
    if manifest.base_precision != "float32":
        raise BundleInvalid(
            "PyTorch reads no quantised weights", got=manifest.base_precision, expected="float32"
        )
    return manifest.pytorch


def _with_prototypes(weights: WeightMap) -> WeightMap:
    if weights.prototypes is None:
        return weights
    return weights.model_copy(update={"weights": {**weights.weights, _PROTOTYPES: weights.prototypes}})


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)  # one byte too many is enough to be refused
    except OSError as error:
        raise BundleInvalid(f"{path.name} of the bundle cannot be read", got=error.strerror) from error
