"""`hetlora adapter download`, `signing-keys` and `verify`: what a service signs of an adapter version."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Final

import typer

from hetlora.cli.adapter_files import check_new_folder, write_files
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.progress import work
from hetlora.cli.trust import CaFileOption
from hetlora.cli.version_option import VersionArgument, version_of
from hetlora.digest import sha256_of, sha256_of_file, verify_digest
from hetlora.errors import SettingsError, WireError
from hetlora.messages.registry import RegistryEntry
from hetlora.signed_manifest import (
    MANIFEST_NAME,
    MAX_SIGNED_BYTES,
    SignedManifest,
    manifest_bytes,
    parse_signed_manifest,
)

ADAPTER_NAME: Final = "adapter.safetensors"
FROZEN_NAME: Final = "frozen.safetensors"
PEFT_WEIGHTS_NAME: Final = "adapter_model.safetensors"


def download(
    version: VersionArgument,
    out: Annotated[Path, typer.Option(help="The folder to write: new, or empty.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write an adapter version as the service has it, with its signed manifest, for `hetlora adapter verify`.

    The manifest says which bytes the version is and where it comes from, in a DSSE envelope with an Ed25519
    signature of the service. For what other programs load, see `hetlora adapter export`.

    Example: `hetlora adapter download keyboard@champion --out downloaded/`
    """
    check_new_folder(out)
    with connect(url, token, ca_file) as operator:
        version = version_of(operator, version)
        signed = operator.registry.manifest(version)
        with work(f"Downloading {version}", as_json=as_json) as told:
            files = {ADAPTER_NAME: operator.adapter_bytes(version, told.moved)}
            if signed.entry().frozen is not None:
                files[FROZEN_NAME] = operator.frozen_bytes(version, told.moved)
    write_files(out, files | {MANIFEST_NAME: manifest_bytes(signed)})
    if as_json:
        print_json({"folder": str(out), "version": version, "files": sorted((*files, MANIFEST_NAME))})
    else:
        say(f"{out}: {version}, signed by {signed.signatures[0].keyid}")


def signing_keys(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the public keys that `hetlora adapter verify` is to trust; keep them apart from what they sign.

    Example: `hetlora adapter signing-keys`
    """
    with connect(url, token, ca_file) as operator:
        keys = operator.registry.signing_keys()
        print_items(keys, ["public_key", "key_id", "first_used_at"], as_json=as_json, title="Signing keys")


def verify(
    folder: Annotated[Path, typer.Argument(help="What `hetlora adapter download` or `export` wrote.")],
    public_key: Annotated[
        list[str],
        typer.Option(help="A key to trust, as `hetlora adapter signing-keys` shows it; again for others."),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Check that a key you trust has signed a folder's manifest, and that its adapter is the one signed.

    Example: `hetlora adapter verify downloaded/ --public-key KEY`

    No service is asked. Of what was made of an adapter (merged weights, an ONNX graph, a PEFT folder that
    takes in a frozen adapter) the manifest alone is checked: the service has not made it.
    """
    signed = parse_signed_manifest(_read(folder / MANIFEST_NAME))
    key_id = check_signature(signed, public_key)
    entry = signed.entry()
    checked = _check_files(folder, entry)
    if as_json:
        print_json({"key_id": key_id, "files": checked, "entry": entry.model_dump(mode="json")})
    else:
        say(f"{entry.version}: signed by {key_id}", *(f"{name}: as signed" for name in checked))
        if not checked:
            say("of its files none is the service's own: none was checked")


def check_signature(signed: SignedManifest, trusted: list[str]) -> str:
    """The id of the trusted key that signed a manifest.

    Raises:
        SettingsError: a key that is none.
        WireError: no trusted key has signed it.
    """
    with part("service"):
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for public in map(_public, trusted):
        for own in signed.signatures:
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(
                    base64.b64decode(own.sig), signed.signed_bytes
                )
            except InvalidSignature:
                continue
            return sha256_of(public)
    raise WireError(
        "the manifest is signed by no key that is trusted",
        got=f"a signature that names {signed.signatures[0].keyid}",
        expected=f"one of {', '.join(sha256_of(_public(key)) for key in trusted)}",
    )


def _public(text: str) -> bytes:
    try:
        public = base64.b64decode(text, validate=True)
    except ValueError:
        public = b""
    if len(public) != 32:
        raise SettingsError("public key", got=text, expected="32 bytes in base64")
    return public


def _check_files(folder: Path, entry: RegistryEntry) -> list[str]:
    """The names of a folder's files that are the service's own; PEFT's weights are, if nothing is frozen."""
    expected = {ADAPTER_NAME: entry.adapter, FROZEN_NAME: entry.frozen}
    if entry.frozen is None:
        expected[PEFT_WEIGHTS_NAME] = entry.adapter
    checked = []
    for name, ref in expected.items():
        path = folder / name
        if not path.is_file():
            continue
        if ref is None:
            raise WireError("the version has no frozen adapter", got=path, expected="no such file")
        try:
            got = sha256_of_file(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        verify_digest(str(path), got=got, expected=ref.sha256)
        checked.append(name)
    return checked


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(2 * MAX_SIGNED_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError("the file cannot be read", got=f"{path}: {error.strerror}", expected="a file")
