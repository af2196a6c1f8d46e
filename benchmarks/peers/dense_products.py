"""FlexLoRA and FLoRA by their formulas: dense products, and a full SVD for each rank; run with a config file.

Prints one JSON object. It needs PyTorch and numpy, and nothing of hetlora. FlexLoRA (arXiv 2402.11505)
multiplies each client's factors out, averages the products, and redistributes them by the SVD of every
module's mean, once more for each target rank; all in float32. FLoRA (arXiv 2409.05976) adds the mean to the
weights: no target rank, and no SVD. In float64 this is what both sides are held against.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Factors = dict[str, tuple[np.ndarray, np.ndarray]]  # by module: lora_B, lora_A


class Library(Protocol):
    """What the published way needs of a library."""

    def product(self, lora_B: np.ndarray, lora_A: np.ndarray) -> Any: ...

    def svd(self, matrix: Any) -> tuple[Any, Any, Any]: ...


class Numpy:
    def product(self, lora_B: np.ndarray, lora_A: np.ndarray) -> Any:
        return lora_B @ lora_A

    def svd(self, matrix: Any) -> tuple[Any, Any, Any]:
        return tuple(np.linalg.svd(matrix, full_matrices=False))  # type: ignore[return-value]


class Torch:
    def product(self, lora_B: np.ndarray, lora_A: np.ndarray) -> Any:
        return torch.from_numpy(lora_B) @ torch.from_numpy(lora_A)

    def svd(self, matrix: Any) -> tuple[Any, Any, Any]:
        return tuple(torch.linalg.svd(torch.as_tensor(matrix), full_matrices=False))


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Commit the updates of the config's folder; their factors lie in memory before the clock starts."""
    paths = sorted(Path(config["updates"]).glob("*.safetensors"))
    clients = [factors_of(path, config["dtype"]) for path in paths]
    examples = np.array([1 + number % 5 for number in range(len(clients))])
    shares = examples / examples.sum()
    library = faster(clients[0], with_svd=bool(config["ranks"]))
    started, cpu_started = time.perf_counter(), time.process_time()
    means = mean_products(clients, shares, library)
    found = decomposed(means, config["ranks"], library)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    parts: dict[str, Any] = (
        {} if found else {f"{module}.mean": np.asarray(mean) for module, mean in means.items()}
    )
    for module, (left, values, right) in found.get(max(config["ranks"], default=0), {}).items():
        parts[f"{module}.left"] = np.asarray(left) * np.asarray(values)
        parts[f"{module}.right"] = np.asarray(right)
    np.savez(Path(config["out"]) / "dense.npz", **parts)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "library": type(library).__name__.lower()}


def mean_products(clients: list[Factors], shares: np.ndarray, library: Library) -> dict[str, Any]:
    """By module, the mean of all clients' lora_B lora_A."""
    means = {}
    for module in clients[0]:
        means[module] = sum(
            float(share) * library.product(*client[module])
            for share, client in zip(shares, clients, strict=True)
        )
    return means


def decomposed(
    means: dict[str, Any], ranks: list[int], library: Library
) -> dict[int, dict[str, tuple[Any, Any, Any]]]:
    """By target rank and module, the leading singular triplets of the mean product."""
    found: dict[int, dict[str, tuple[Any, Any, Any]]] = {}
    for rank in ranks:
        found[rank] = {}
        for module, mean in means.items():
            left, values, right = library.svd(mean)
            found[rank][module] = left[:, :rank], values[:rank], right[:rank]
    return found


def faster(client: Factors, *, with_svd: bool) -> Library:
    """Whichever takes the work on one module in less time: its product, and the SVD of that if any is."""
    libraries: list[Library] = [Numpy(), Torch()]
    return min(libraries, key=lambda library: min(_seconds(library, client, with_svd) for _ in range(3)))


def _seconds(library: Library, client: Factors, with_svd: bool) -> float:
    started = time.perf_counter()
    product = library.product(*next(iter(client.values())))
    if with_svd:
        library.svd(product)
    return time.perf_counter() - started


def factors_of(path: Path, dtype: str) -> Factors:
    """The factors of a stored update, by module."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    numbers = np.frombuffer(data[start:], np.float32).astype(dtype)

    def tensor(name: str) -> np.ndarray:
        first, end = header[name]["data_offsets"]
        return numbers[first // 4 : end // 4].reshape(header[name]["shape"])

    stems = sorted({name.rpartition(".lora_")[0] for name in header if ".lora_" in name})
    return {
        stem.removeprefix("base_model.model."): (
            tensor(f"{stem}.lora_B.weight"),
            tensor(f"{stem}.lora_A.weight"),
        )
        for stem in stems
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
