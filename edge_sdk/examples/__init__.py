"""The example store: what an app leaves on the device for training; it never leaves the device.

`kinds` are the examples, `store` keeps them and `split` sets some aside; below those, `changes` is what one
transaction does to the rows, `rows` seals and opens them with `keys`, and `token_cache` keeps what batches
make of them. The file is a `StoreFile`. docs/adr/0017-example-store.md says why it is built so.
"""

from edge_sdk.examples.keys import StoreKey
from edge_sdk.examples.kinds import AnyExample, ChatExample, ChatTurn, Example, ImageExample, TextExample
from edge_sdk.examples.split import SplitExampleStore, open_stores
from edge_sdk.examples.store import ExampleStore, StoreOptions

__all__ = [
    "AnyExample",
    "ChatExample",
    "ChatTurn",
    "Example",
    "ExampleStore",
    "ImageExample",
    "SplitExampleStore",
    "StoreKey",
    "StoreOptions",
    "TextExample",
    "open_stores",
]
