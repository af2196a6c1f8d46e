from __future__ import annotations

import math
import re
import socket
from contextlib import closing
from pathlib import Path

import pytest

from aggregator_service.server import listen, serve
from aggregator_service.service import open_service
from aggregator_service.settings import ENVIRONMENT_PREFIX, Settings
from hetlora.errors import PortInUse, SettingsError

DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"


def rows() -> dict[str, tuple[str, str]]:
    """Default and meaning by variable, as docs/settings.md has them."""
    found = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return {name: (default, meaning) for name, default, meaning in found}


def test_every_setting_is_documented_as_it_is() -> None:
    expected = {
        f"{ENVIRONMENT_PREFIX}{name.upper()}": (
            "none" if field.default is None else f"`{field.default}`",
            field.description,
        )
        for name, field in Settings.model_fields.items()
    }
    assert rows() == expected


def test_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETLORA_PORT", "9000")
    assert Settings().port == 9000


def test_bad_setting_is_named_by_its_variable_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETLORA_PORT", "many")
    monkeypatch.setenv("HETLORA_OPERATOR_TOKEN", "short")
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert "HETLORA_PORT: Input should be a valid integer" in str(caught.value)
    assert "HETLORA_OPERATOR_TOKEN: " in str(caught.value)
    assert "short" not in str(caught.value).replace("too_short", "")


@pytest.mark.parametrize("letter", [" ", "ü", "\n", "\t", "\0", "\x7f", "\u00a0"])
@pytest.mark.parametrize("place", ["%s" + "x" * 16, "x" * 8 + "%s" + "x" * 8, "x" * 16 + "%s"])
def test_operator_token_that_no_request_can_carry_is_refused(letter: str, place: str) -> None:
    token = place % letter
    with pytest.raises(SettingsError) as caught:
        Settings.model_validate({"operator_token": token})
    assert "HETLORA_OPERATOR_TOKEN: " in str(caught.value)
    assert "printable ASCII without blanks" in str(caught.value)
    assert token not in str(caught.value)


def test_operator_token_of_any_other_letters_is_taken() -> None:
    token = bytes(range(ord("!"), ord("~") + 1)).decode()
    kept = Settings.model_validate({"operator_token": token}).operator_token
    assert kept is not None
    assert kept.get_secret_value() == token


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith("_seconds")])
@pytest.mark.parametrize("value", [-1.0, 365 * 24 * 3600 + 1, 1e10, math.inf, math.nan])
def test_time_that_no_clock_can_wait_is_refused(name: str, value: float) -> None:
    assert Settings.model_validate({name: 3600})
    with pytest.raises(SettingsError, match=f"HETLORA_{name.upper()}"):
        Settings.model_validate({name: value})


def test_relative_data_dir_stays_where_it_was_when_the_service_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(open_service(Settings(data_dir=Path("data")))) as service:
        kept = service.objects.put(b"an object")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")  # as workers of a cluster are
        assert service.objects.read(kept.sha256) == b"an object"
        assert service.updates("round").root == tmp_path / "data" / "updates" / "round"


def test_address_of_a_cluster_is_refused_without_its_engine(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has no Ray cluster; got ray_address 127\.0\.0\.1:1"):
        open_service(Settings(data_dir=tmp_path, ray_address="127.0.0.1:1"))
    open_service(Settings(data_dir=tmp_path)).close()  # nothing of it is held


def test_port_in_use_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            serve(Settings(data_dir=tmp_path / "data", port=port))
    assert caught.value.got == f"127.0.0.1:{port}"
    assert not (tmp_path / "data").exists()


def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot listen"):
        listen(Settings(host="192.0.2.1", port=0, insecure_http=True))
