"""Objects and bundles as the operator publishes them."""

from __future__ import annotations

import json

import pytest
from service_bundle import FILES, make_manifest
from service_operator import Operator
from service_server import problem

from aggregator_service.service import Service
from hetlora.digest import sha256_of


def test_object_whose_bytes_are_not_its_name_is_refused(operator: Operator, service: Service) -> None:
    answer = operator.send("PUT", f"/objects/{sha256_of(b'what was meant')}", content=b"what was sent")
    assert problem(answer) == (422, "digest_mismatch")
    assert list(service.objects.incoming.iterdir()) == []


def test_object_with_a_wrong_digest_header_is_refused(operator: Operator) -> None:
    data = b"data"
    headers = {"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}
    answer = operator.send("PUT", f"/objects/{sha256_of(data)}", content=data, headers=headers)
    assert problem(answer) == (422, "digest_mismatch")


def test_head_tells_whether_an_object_is_there(operator: Operator) -> None:
    digest = sha256_of(b"new")
    assert operator.send("HEAD", f"/objects/{digest}").status_code == 404
    operator.put(b"new")
    answer = operator.send("HEAD", f"/objects/{digest}")
    assert (answer.status_code, answer.headers["content-length"]) == (200, "3")


def test_bundle_is_described_from_its_manifest(operator: Operator, bundle: str) -> None:
    manifest = make_manifest().to_json()
    (status,) = operator.items("/bundles")
    assert status == {
        "digest": sha256_of(manifest),
        "base_model": "tiny",
        "task": "text-classification",
        "max_rank": 2,
        "size_bytes": len(manifest) + sum(map(len, FILES.values())),
    }
    assert operator.send("GET", f"/bundles/{bundle}/manifest").content == manifest
    assert problem(operator.send("GET", f"/bundles/{'0' * 64}/manifest")) == (404, "not_found")


def test_bundle_with_a_missing_file_is_refused(operator: Operator, service: Service, bundle: str) -> None:
    name = "base.bin"
    service.objects.path(sha256_of(FILES[name])).unlink()
    answer = operator.send("POST", "/bundles", json={"digest": bundle})
    assert problem(answer) == (404, "not_found")
    assert answer.json()["detail"] == "base.bin was never uploaded"


def test_bundle_with_one_flipped_byte_is_refused_until_it_is_uploaded_again(
    operator: Operator, service: Service, bundle: str
) -> None:
    path = service.objects.path(sha256_of(FILES["base.bin"]))
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    answer = operator.send("POST", "/bundles", json={"digest": bundle})
    assert problem(answer) == (422, "digest_mismatch")
    assert answer.json()["detail"] == "base.bin does not match its digest"
    operator.put(FILES["base.bin"])
    operator.call("POST", "/bundles", json={"digest": bundle})


def test_manifest_that_lies_about_a_size_is_refused(operator: Operator) -> None:
    manifest = make_manifest()
    entry = manifest.files["base.bin"]
    lying = manifest.model_copy(
        update={"files": manifest.files | {"base.bin": entry.model_copy(update={"size_bytes": 1})}}
    )
    digest = operator.put(lying.to_json())
    answer = operator.send("POST", "/bundles", json={"digest": digest})
    assert problem(answer) == (422, "bundle_invalid")


@pytest.mark.parametrize(
    "adapter",
    [
        {"max_rank": 2**63},
        {"modules": [{"name": "key", "in_features": 10**30, "out_features": 10**30}], "max_rank": 10**30},
        {"modules": [{"name": "key", "in_features": 10**14, "out_features": 10**14}]},
    ],
)
def test_manifest_of_an_adapter_that_no_service_could_make_is_refused(
    operator: Operator, adapter: dict[str, object]
) -> None:
    fields = json.loads(make_manifest().to_json())
    digest = operator.put(json.dumps(fields | {"adapter": fields["adapter"] | adapter}).encode())
    assert problem(operator.send("POST", "/bundles", json={"digest": digest})) == (422, "bundle_invalid")


def test_object_that_is_no_manifest_is_refused_as_a_bundle(operator: Operator) -> None:
    digest = operator.put(b"{}")
    assert problem(operator.send("POST", "/bundles", json={"digest": digest})) == (422, "bundle_invalid")
    answer = operator.send("POST", "/bundles", json={"digest": "0" * 64})
    assert problem(answer) == (404, "not_found")
