"""The literal files of this folder are what travels; clients in other languages read the same ones."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.algebra import delta_norm, module_tail_norm, pruned_rank, truncate
from hetlora.errors import error_classes
from hetlora.messages import device, evaluation, rollouts
from hetlora.messages.common import Message, Problem
from hetlora.partial import contract, expand
from hetlora.partial_tensors import cores_from_bytes, cores_to_bytes, read_partial
from hetlora.signature import (
    SignatureParameters,
    content_digest,
    device_id_of,
    parse_signature,
    signature_base,
)
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes
from hetlora.tus import PART_TYPE, VERSION, parse_checksum, parse_metadata, sha256_pair, smallest_part_bytes

FOLDER = Path(__file__).parent
MESSAGES: dict[str, type[Message]] = {
    "adoption_report.json": rollouts.AdoptionReport,
    "check_in.json": device.CheckIn,
    "check_in_abilities.json": device.CheckIn,
    "check_in_answer_adoption.json": device.CheckInAnswer,
    "check_in_answer_conditions.json": device.CheckInAnswer,
    "check_in_answer_offer.json": device.CheckInAnswer,
    "check_in_answer_retry.json": device.CheckInAnswer,
    "check_in_answer_scores.json": device.CheckInAnswer,
    "check_in_answer_variants.json": device.CheckInAnswer,
    "check_in_held_out.json": device.CheckIn,
    "check_in_measured.json": device.CheckIn,
    "check_in_answer_evaluation.json": device.CheckInAnswer,
    "device_status.json": device.DeviceStatus,
    "enrol_request.json": device.EnrolRequest,
    "evaluation_report.json": evaluation.EvaluationReport,
    "failure.json": device.Failure,
    "plan.json": device.Plan,
    "problem.json": Problem,
    "receipt.json": device.Receipt,
    "report.json": device.Report,
    "report_scores.json": device.Report,
    "start_request.json": device.StartRequest,
    "start_request_variant.json": device.StartRequest,
}
SPEC = AdapterSpec((ModuleSpec("h.0.k", 3, 2), ModuleSpec("h.0.q", 2, 2)), scaling=2.0, max_rank=2)


def literal(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def adapter_bytes(name: str) -> bytes:
    return bytes.fromhex((FOLDER / name).read_text())


def test_every_literal_message_is_held_by_a_test() -> None:
    others = {
        "adaptations.json",
        "algebra.json",
        "conditions.json",
        "errors.json",
        "machines.json",
        "parts.json",
        "planning.json",
        "product.json",
        "pruning.json",
        "rounding.json",
        "signature.json",
        "tensor_files.json",
        "tokens.json",
        "training_steps.json",
        "tus.json",
    }
    assert {path.name for path in FOLDER.glob("*.json")} == MESSAGES.keys() | others


@pytest.mark.parametrize(("name", "kind"), MESSAGES.items())
def test_message_is_read_and_written_as_pinned(name: str, kind: type[Message]) -> None:
    message = kind.model_validate_json((FOLDER / name).read_bytes())
    assert json.loads(message.model_dump_json()) == literal(name)


def test_codes_families_and_statuses_are_as_pinned() -> None:
    classes = error_classes()
    assert [row["code"] for row in literal("errors.json")["codes"]] == list(classes)
    for row in literal("errors.json")["codes"]:
        kind = classes[row["code"]]
        assert row["status"] == kind.status
        assert row["parent"] == (None if row["code"] == "error" else kind.__mro__[1].code)


def test_device_believes_of_a_service_what_is_pinned() -> None:
    reason = "pip install hetlora[edge]"
    answers = pytest.importorskip("edge_sdk.transport.answers", reason=reason, exc_type=ImportError)
    retries = pytest.importorskip("edge_sdk.transport.retries", reason=reason, exc_type=ImportError)
    pinned = literal("errors.json")
    for row in pinned["codes"] + pinned["told_otherwise"]:
        code, status = row["code"], row["status"]
        problem = Problem(type=f"urn:hetlora:error:{code}", title="t", status=status, detail="d", code=code)
        answer = retries.ErrorAnswer(status, problem.model_dump_json().encode(), 0.0)
        assert answers.told_error(answer, service_url="http://service").code == row["believed"], row


def test_adapter_file_is_written_and_read_as_pinned() -> None:
    data = adapter_bytes("adapter_rank2.safetensors.hex")
    adapter = adapter_from_bytes(data, SPEC)
    assert adapter.factors["h.0.k"].lora_A.tolist() == [[1, 0, 2], [0, 3, 4]]
    assert adapter.factors["h.0.k"].lora_B.tolist() == [[1, 0], [2, 5]]
    assert adapter.factors["h.0.q"].lora_A.tolist() == [[2, 1], [0, 0.5]]
    assert adapter.factors["h.0.q"].lora_B.tolist() == [[3, 1], [0, -1]]
    assert adapter_to_bytes(adapter) == data


def test_plan_of_an_older_service_means_a_plain_adapter() -> None:
    fields = literal("plan.json")
    del fields["adaptation"], fields["frozen"]
    plan = device.Plan.model_validate(fields)
    assert (plan.adaptation, plan.frozen) == (device.Adaptation(), None)


def test_selected_ranks_are_written_and_read_as_pinned() -> None:
    # lora_B moved in k by (0, 3) at rank 1, whose row (0, 3, 4) has norm 5: 15; and in q by (1, 0) at rank 0,
    # whose row (2, 1) has norm sqrt(5).
    received = adapter_from_bytes(adapter_bytes("adapter_rank2.safetensors.hex"), SPEC)
    trained = with_lora_b(received, k=[[1, 0], [2, 8]], q=[[4, 1], [0, -1]])
    data = adapter_bytes("update_selected_rank.safetensors.hex")
    adaptation = device.Adaptation(trained="lora_B", selected_ranks=1)
    read = expand(data, SPEC, adaptation, received)
    assert contract(trained, adaptation, received) == data
    assert read.factors["h.0.k"].lora_B.tolist() == [[1, 0], [2, 8]]
    assert read.factors["h.0.q"].lora_B.tolist() == [[3, 1], [0, -1]]  # as received


def test_sparse_change_is_written_and_read_as_pinned() -> None:
    # 8 numbers of lora_B, an eighth of which is one: the change by 3 in k, at row 1 of 2 and column 1 of 2.
    received = adapter_from_bytes(adapter_bytes("adapter_rank2.safetensors.hex"), SPEC)
    trained = with_lora_b(received, k=[[1, 0], [2, 8]], q=[[4, 1], [0, -1]])
    data = adapter_bytes("update_sparse.safetensors.hex")
    adaptation = device.Adaptation(trained="lora_B", upload_density=0.125)
    assert contract(trained, adaptation, received) == data
    assert read_partial(data)["base_model.model.h.0.k.lora_B.weight.positions"].tolist() == [3]
    assert expand(data, SPEC, adaptation, received).factors["h.0.k"].lora_B.tolist() == [[1, 0], [2, 8]]


def test_change_in_int8_is_written_and_read_as_pinned() -> None:
    # In k one number of lora_B moves by 127, so that a step of its rank is 1. In q the first rank moves by
    # 254 and -126: its step is 2, and the numbers are 127 and -63.
    received = adapter_from_bytes(adapter_bytes("adapter_rank2.safetensors.hex"), SPEC)
    trained = with_lora_b(received, k=[[1, 0], [2, 132]], q=[[257, 1], [-126, -1]])
    data = adapter_bytes("update_int8.safetensors.hex")
    adaptation = device.Adaptation(upload_precision="int8")
    assert contract(trained, adaptation, received) == data
    assert adapter_to_bytes(expand(data, SPEC, adaptation, received)) == adapter_to_bytes(trained)


def test_cores_are_written_and_read_as_pinned() -> None:
    data = adapter_bytes("update_cores.safetensors.hex")
    cores = cores_from_bytes(data, SPEC, 2)
    assert {name: core.tolist() for name, core in cores.items()} == {
        "h.0.k": [[1, 0], [0, 1]],
        "h.0.q": [[0, 2], [-1, 0.5]],
    }
    assert cores_to_bytes(cores) == data


def with_lora_b(adapter: Adapter, **lora_B: list[list[float]]) -> Adapter:
    return Adapter(
        SPEC,
        {name: LoraFactors(own.lora_A, np.array(lora_B[name[-1]])) for name, own in adapter.factors.items()},
    )


def test_truncation_gives_the_pinned_bytes() -> None:
    whole = adapter_from_bytes(adapter_bytes("adapter_rank2.safetensors.hex"), SPEC)
    assert adapter_to_bytes(truncate(whole, 1)) == adapter_bytes("adapter_rank1.safetensors.hex")


def test_norms_and_pruned_ranks_are_as_pinned() -> None:
    # k: B A = [[1, 0, 2], [2, 15, 24]], squares 810; q: [[6, 3.5], [0, -0.5]], squares 48.5; together 858.5
    # tails: k 5 * 5, q sqrt(2) * 0.5
    pinned = literal("algebra.json")
    adapter = adapter_from_bytes(adapter_bytes(pinned["adapter"]), SPEC)
    assert delta_norm(adapter) == pytest.approx(pinned["delta_norm"], rel=1e-15)
    tails = [module_tail_norm(own, pinned["keep"]) for _, own in adapter]
    assert sum(tails) == pytest.approx(pinned["tail_norm"], rel=1e-15)
    for row in pinned["pruned_rank"]:
        assert pruned_rank(row["rank"], row["pruning_decay"]) == row["kept"]


def test_signature_base_and_headers_are_as_pinned() -> None:
    pinned = literal("signature.json")
    body_sha256 = hashlib.sha256(pinned["body"].encode()).hexdigest()
    parameters = SignatureParameters(pinned["created"], pinned["nonce"], pinned["device_id"])
    base = signature_base(
        parameters,
        method=pinned["method"],
        path=pinned["path"],
        query=pinned["query"],
        body_sha256=body_sha256,
    )
    headers = pinned["headers"]
    assert base.decode() == pinned["signature_base"]
    assert content_digest(body_sha256) == headers["Content-Digest"]
    assert parse_signature(headers["Signature-Input"], headers["Signature"])[0] == parameters


def test_device_id_and_public_key_are_those_of_the_enrolment() -> None:
    pinned = literal("signature.json")
    public_key = base64.b64decode(pinned["public_key"])
    assert device_id_of(public_key) == pinned["device_id"]
    assert literal("enrol_request.json")["public_key"] == pinned["public_key"]
    assert literal("device_status.json")["device_id"] == pinned["device_id"]


def test_pinned_signature_is_made_by_the_pinned_key() -> None:
    ed25519 = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.ed25519", reason="pip install hetlora[edge]"
    )
    pinned = literal("signature.json")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(pinned["private_key_hex"]))
    _, signature = parse_signature(pinned["headers"]["Signature-Input"], pinned["headers"]["Signature"])
    assert key.sign(pinned["signature_base"].encode()) == signature  # Ed25519 signs alike each time
    assert key.public_key().public_bytes_raw() == base64.b64decode(pinned["public_key"])


def test_headers_of_an_upload_are_as_pinned() -> None:
    pinned = literal("tus.json")
    sha256 = hashlib.sha256(pinned["body"].encode()).hexdigest()
    assert (pinned["version"], pinned["part_type"]) == (VERSION, PART_TYPE)
    assert sha256 == pinned["sha256"]
    assert sha256_pair(sha256) == pinned["pair"]
    assert parse_checksum(pinned["pair"]) == ("sha256", sha256)
    assert parse_metadata(pinned["pair"]) == sha256
    for row in pinned["smallest_part_bytes"]:
        assert smallest_part_bytes(row["length_bytes"]) == row["least"]
