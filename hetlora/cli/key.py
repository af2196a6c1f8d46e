"""`hetlora key`: what operators bring, and what it lets them do."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.trust import CaFileOption
from hetlora.messages.operators import OperatorRole

app = typer.Typer(no_args_is_help=True, help="Keys: what operators bring, and what it lets them do.")


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(help="Whose it is: lower-case letters, digits, dot, dash, underscore.")
    ],
    role: Annotated[
        OperatorRole,
        typer.Option(
            help="viewer: look. operator: also bundles, runs and devices. admin: also keys, populations and "
            "the audit log."
        ),
    ],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a key and show its token, this once; its operator sets it as HETLORA_OPERATOR_TOKEN.

    Example: `hetlora key create alice --role operator`
    """
    with connect(url, token, ca_file) as operator:
        created = operator.create_key(name, role)
    if as_json:
        print_json(created)
    else:
        say(
            f"key {created.key.key_id}: {created.key.name}, {created.key.role}",
            f"token {created.token}  (kept nowhere else)",
        )


@app.command("list")
def list_keys(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List keys, those that were revoked among them.

    Example: `hetlora key list`
    """
    columns = ["key_id", "name", "role", "created_at", "last_used_at", "revoked_at"]
    with connect(url, token, ca_file) as operator:
        print_items(operator.keys(), columns, as_json=as_json, title="Keys")


@app.command()
def whoami(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell whose key it is that commands bring, and its role.

    Example: `hetlora key whoami`
    """
    with connect(url, token, ca_file) as operator:
        holder = operator.whoami()
    if as_json:
        print_json(holder)
    else:
        say(f"key {holder.key_id}: {holder.name}, {holder.role}")


@app.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY", help="The key's id, as `hetlora key list` tells it.")
    ],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Revoke a key: from now on it opens nothing.

    Example: `hetlora key revoke KEY`
    """
    with connect(url, token, ca_file) as operator:
        revoked = operator.revoke_key(key_id)
    if as_json:
        print_json(revoked)
    else:
        say(f"key {revoked.key_id} of {revoked.name}: revoked")
