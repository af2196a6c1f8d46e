"""What is read from a file a module at a time is what is read from its bytes at once, or is refused alike."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import InputError, MalformedTensors
from hetlora.expansion import expand_lazily
from hetlora.lazy_adapter import LazyAdapter, lazily
from hetlora.messages.device import Adaptation
from hetlora.partial import contract, expand
from hetlora.plan_adapter import open_sent, sent_from_bytes, sent_tensors, sparse_tensors
from hetlora.stored_tensors import DTYPES, Source, stored_tensors, tensors_to_bytes, write_tensors
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes, read_adapter

SPEC = AdapterSpec((ModuleSpec("k", 3, 2), ModuleSpec("q", 2, 4)), scaling=2.0, max_rank=2)


def adapter(value: float, ranks: tuple[int, int] = (2, 1)) -> Adapter:
    return Adapter(
        SPEC,
        {
            module.name: LoraFactors(
                np.full((rank, module.in_features), value), np.full((module.out_features, rank), value)
            )
            for module, rank in zip(SPEC.modules, ranks, strict=True)
        },
    )


RECEIVED, SQUARE = adapter(1), adapter(1, (2, 2))
CORES = {name: np.full((2, 2), 3, np.float32) for name in SPEC.by_name}
CORE, SPARSE = Adaptation(trained="core"), Adaptation(upload_density=0.5)
SELECTED, ONE = Adaptation(selected_ranks=2), Adaptation(trained="lora_B")
HALVED, QUANTISED = Adaptation(upload_precision="float16"), Adaptation(upload_precision="int8")
QUANTISED_SPARSE = Adaptation(upload_density=0.5, upload_precision="int8")
QUANTISED_RANKS = Adaptation(selected_ranks=2, upload_precision="int8")


def expanding(adaptation: Adaptation, received: Adapter) -> Callable[[Source], LazyAdapter]:
    return lambda source: expand_lazily(source, adaptation, lazily(received))


# By kind: a good file, how it is read lazily, and how all at once.
KINDS: dict[str, tuple[bytes, Callable[[Source], LazyAdapter], Callable[[bytes], Adapter]]] = {
    "whole": (
        adapter_to_bytes(RECEIVED),
        lambda source: read_adapter(source, SPEC),
        lambda data: adapter_from_bytes(data, SPEC),
    ),
    "sent": (
        adapter_to_bytes(RECEIVED),
        lambda source: open_sent(source, SPEC),
        lambda data: sent_from_bytes(data, SPEC).adapter,
    ),
    "sent with cores": (
        tensors_to_bytes(sent_tensors(SQUARE, CORES)),
        lambda source: open_sent(source, SPEC),
        lambda data: sent_from_bytes(data, SPEC).adapter,
    ),
    "sent sparse": (
        tensors_to_bytes(sparse_tensors(adapter(2), 0.4)),
        lambda source: open_sent(source, SPEC),
        lambda data: sent_from_bytes(data, SPEC).adapter,
    ),
} | {
    name: (
        contract(adapter(2, tuple(received.ranks.values())), adaptation, received, CORES),  # type: ignore[arg-type]
        expanding(adaptation, received),
        lambda data, adaptation=adaptation, received=received: expand(data, SPEC, adaptation, received),  # type: ignore[misc]
    )
    for name, adaptation, received in (
        ("cores", CORE, SQUARE),
        ("sparse", SPARSE, RECEIVED),
        ("selected", SELECTED, RECEIVED),
        ("one factor", ONE, RECEIVED),
        ("float16", HALVED, RECEIVED),
        ("int8", QUANTISED, RECEIVED),
        ("int8 sparse", QUANTISED_SPARSE, RECEIVED),
        ("int8 selected", QUANTISED_RANKS, RECEIVED),
    )
}
# What is known by its digest is taken as it is: only what arrives is to be refused.
ARRIVING = [kind for kind in KINDS if not kind.startswith("sent")]


@contextmanager
def opened(data: bytes) -> Iterator[BufferedReader]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tensors")
        path.write_bytes(data)
        with path.open("rb") as file:
            yield file


def module_by_module(lazy: LazyAdapter) -> dict[str, tuple[bytes, ...]]:
    factors = {name: lazy.checked(name) for name in lazy.ranks}
    assert {name: own.rank for name, own in factors.items()} == lazy.ranks
    return {name: (own.lora_A.tobytes(), own.lora_B.tobytes()) for name, own in factors.items()}


def verdict(read: Callable[[], LazyAdapter]) -> object:
    """The numbers, or what an update is refused with; `got` may quote a library in its own words."""
    try:
        return module_by_module(read())
    except InputError as error:
        return type(error), error.what, error.expected


@pytest.mark.parametrize("kind", KINDS)
def test_file_read_a_module_at_a_time_has_every_bit_of_its_bytes(kind: str) -> None:
    data, read, read_at_once = KINDS[kind]
    with opened(data) as file:
        found = module_by_module(read(file))
    assert found == module_by_module(lazily(read_at_once(data)))


@settings(deadline=None)
@pytest.mark.parametrize("kind", ARRIVING)
@given(
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=3),
    cut=st.none() | st.integers(0, 10_000),
)
def test_damaged_file_is_read_or_refused_as_its_bytes_are(
    kind: str, flips: list[tuple[int, int]], cut: int | None
) -> None:
    good, read, read_at_once = KINDS[kind]
    data = bytearray(good)
    for place, flip in flips:
        data[place % len(data)] ^= flip
    damaged = bytes(data if cut is None else data[: cut % len(data)])
    with opened(damaged) as file:
        assert verdict(lambda: read(file)) == verdict(lambda: lazily(read_at_once(damaged)))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["float32", "float16", "uint32", "int64", "bool"]), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=3),
)
def test_stored_tensors_are_those_of_the_file(dtypes: list[str], shape: list[int]) -> None:
    tensors = {
        f"{number}": (np.arange(np.prod(shape, dtype=int)) + number).reshape(shape).astype(dtype)
        for number, dtype in enumerate(dtypes)
    }
    with opened(save(tensors)) as file:
        stored = stored_tensors(file)
        assert stored.keys() == tensors.keys()
        for key, tensor in tensors.items():
            own = stored[key]
            assert (own.dtype, own.shape, own.size, own.ndim) == (
                tensor.dtype,
                tensor.shape,
                tensor.size,
                tensor.ndim,
            )
            np.testing.assert_array_equal(np.asarray(own), tensor)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=6).filter(lambda key: key != "__metadata__"),
        st.tuples(
            st.sampled_from([*DTYPES.values()]),
            st.lists(st.integers(0, 3), max_size=3),
        ),
    )
)
def test_file_written_in_pieces_is_that_of_safetensors(
    kinds: dict[str, tuple[str, list[int]]],
) -> None:
    tensors = {
        key: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
        for key, (dtype, shape) in kinds.items()
    }
    assert tensors_to_bytes(tensors) == save(tensors, metadata={"format": "pt"})
    turned = {key: tensor.T for key, tensor in tensors.items()}
    in_order = {key: np.array(tensor, order="C") for key, tensor in turned.items()}
    assert tensors_to_bytes(turned) == save(in_order, metadata={"format": "pt"})


def test_to_write_a_file_takes_no_copy_of_its_tensors() -> None:
    tensors = {name: np.ones(2**21, np.float32) for name in "ab"}
    sizes: list[int] = []
    tracemalloc.start()
    write_tensors(tensors, lambda piece: sizes.append(piece.nbytes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes[1:]) == 2**24
    assert peak < 2**20


def test_file_that_was_cut_after_it_was_opened_is_refused() -> None:
    with opened(adapter_to_bytes(RECEIVED)) as file:
        lazy = read_adapter(file, SPEC)
        lazy.checked("q")
        Path(file.name).write_bytes(adapter_to_bytes(RECEIVED)[:-8])
        with pytest.raises(MalformedTensors, match="cut off"):
            [lazy.checked(name) for name in SPEC.by_name]
