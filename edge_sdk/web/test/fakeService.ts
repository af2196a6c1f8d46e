// A service in memory: it looks at signatures as the real one, and has one assignment.
import { bytesOfBase64, bytesOfText, hexOf, joined, sha256Of } from "../src/bytes";
import { CODES, type ErrorCode } from "../src/errors/codes";
import { deviceIdOf } from "../src/identity/identity";
import { contentDigest, signatureBase } from "../src/identity/signature";
import { adapterToBytes, type Adapter } from "../src/tensors/adapter";
import type { AdapterSpec } from "../src/tensors/spec";
import type { Surroundings } from "../src/transport/transport";
import { literal } from "./contractFiles";

export const TOKEN = "the-enrolment-token";

type Json = any;

export class FakeService {
  readonly objects = new Map<string, Uint8Array>();
  readonly updates: Uint8Array[] = [];
  readonly reports: Json[] = [];
  readonly evaluations: Json[] = [];
  readonly failures: Json[] = [];
  readonly requests: string[] = [];
  /** Looked at before each request is answered; what it gives is the answer. */
  intercept: (request: Request) => Response | undefined | Promise<Response | undefined> = () => undefined;
  offer: Json;
  plan: Json;
  private keys = new Map<string, string>();
  private nonces = new Set<string>();
  private open: { bytes: Uint8Array; length: number; sha256: string } | null = null;
  private update: Uint8Array | null = null;
  private state: "open" | "accepted" | "failed" = "open";

  /** A service that offers one training of an adapter. */
  static async of(adapter: Adapter, settings: { training?: Json; adaptation?: Json; offer?: Json } = {}) {
    const service = new FakeService();
    const manifest = await service.put(bytesOfText(JSON.stringify(await service.manifest(adapter.spec))));
    service.offer = {
      assignment_id: "a-1", run_id: "r-1", round_index: 0, bundle: manifest, min_rank: 1,
      max_rank: adapter.spec.max_rank, round_seconds: 600, lease_expires_at: "2030-01-01T00:00:00Z",
      training: { steps: 6, pruning_decay: 1, ...settings.training }, ...settings.offer,
    };
    service.plan = {
      assignment_id: "a-1", rank: adapter.spec.max_rank, seed: 7, lease_expires_at: "2030-01-01T00:00:00Z",
      adapter: await service.put(adapterToBytes(adapter)), adaptation: settings.adaptation ?? {},
    };
    return service;
  }

  private async manifest(spec: AdapterSpec): Promise<Json> {
    const { manifest } = literal("planning.json").base;
    const weights = await this.put(new Uint8Array(100_000).map((_, at) => at % 251));
    return { ...manifest, adapter: spec, files: { ...manifest.files, "base.bin": weights } };
  }

  async put(bytes: Uint8Array): Promise<{ sha256: string; size_bytes: number }> {
    const sha256 = await sha256Of(bytes);
    this.objects.set(sha256, bytes);
    return { sha256, size_bytes: bytes.length };
  }

  get surroundings(): Surroundings {
    const sleep = async () => undefined;
    return { fetch: (request) => this.fetch(request), clock: () => Date.now() / 1000, timer: () => 0, random: () => 0, sleep };
  }

  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    this.requests.push(`${request.method} ${pathname}`);
    const intercepted = await this.intercept(request);
    if (intercepted) return intercepted;
    const body = new Uint8Array(await request.arrayBuffer());
    return (await this.refusal(request, body)) ?? (await this.answer(request, pathname, body));
  }

  private async answer(request: Request, path: string, body: Uint8Array): Promise<Response> {
    const json = (): Json => JSON.parse(new TextDecoder().decode(body));
    const family = this.offer.kind === "evaluate" ? "evaluations" : "assignments";
    const own = `/device/v1/${family}/${this.offer.assignment_id}`;
    switch (`${request.method} ${path}`) {
      case "POST /device/v1/devices": {
        const told = json();
        if (told.enrolment_token !== TOKEN) return problem("authentication_failed");
        const deviceId = await deviceIdOf(bytesOfBase64(told.public_key));
        this.keys.set(deviceId, told.public_key);
        return answer({ device_id: deviceId, state: "accepted" }, 201);
      }
      case "POST /device/v1/check-ins":
        return answer({ offer: this.state === "open" ? this.offer : null, retry_after_seconds: 30, reason: "told" });
      case `POST ${own}:start`:
        return answer(this.plan);
      case `PUT ${own}/update`:
        return answer(await this.took(body));
      case `POST ${own}/uploads`:
        return this.begun(request);
      case "PATCH /device/v1/uploads/u-1":
        return this.part(request, body);
      case `POST ${own}:submit`:
        return family === "evaluations" ? this.evaluated(json()) : this.submitted(json());
      case `POST ${own}:fail`:
        this.failures.push(json());
        if (this.state === "open") this.state = "failed";
        return answer(this.receipt());
      default:
        return path.startsWith("/device/v1/objects/") ? this.object(request, path) : problem("not_found");
    }
  }

  private async refusal(request: Request, body: Uint8Array): Promise<Response | null> {
    const url = new URL(request.url);
    const told = /;created=(\d+);nonce="([^"]+)";keyid="([^"]+)"/.exec(request.headers.get("Signature-Input") ?? "")!;
    const parameters = { created: Number(told[1]), nonce: told[2]!, deviceId: told[3]! };
    const isEnrolment = url.pathname === "/device/v1/devices";
    const publicKey = isEnrolment ? JSON.parse(new TextDecoder().decode(body)).public_key : this.keys.get(parameters.deviceId);
    if (!publicKey) return problem("unknown_device");
    const bodySha256 = await sha256Of(body);
    const base = signatureBase(parameters, { method: request.method, path: url.pathname, query: url.search.slice(1), bodySha256 });
    const signature = bytesOfBase64(request.headers.get("Signature")!.slice("hetlora=:".length, -1));
    const key = await crypto.subtle.importKey("raw", bytesOfBase64(publicKey), "Ed25519", false, ["verify"]);
    const isGood = await crypto.subtle.verify("Ed25519", key, signature, base);
    if (!isGood || request.headers.get("Content-Digest") !== contentDigest(bodySha256)) return problem("authentication_failed");
    if (this.nonces.has(parameters.nonce)) return problem("replayed_request");
    this.nonces.add(parameters.nonce);
    return null;
  }

  private object(request: Request, path: string): Response {
    const sha256 = path.split("/").at(-1)!;
    const bytes = this.objects.get(sha256);
    if (!bytes) return problem("not_found");
    const headers = { ETag: `"${sha256}"`, "Content-Type": "application/octet-stream" };
    const first = Number(/^bytes=(\d+)-$/.exec(request.headers.get("Range") ?? "")?.[1] ?? -1);
    if (first < 0) return new Response(bytes, { headers });
    const range = `bytes ${first}-${bytes.length - 1}/${bytes.length}`;
    return new Response(bytes.subarray(first), { status: 206, headers: { ...headers, "Content-Range": range } });
  }

  private async took(bytes: Uint8Array) {
    this.update = bytes;
    return { sha256: await sha256Of(bytes), size_bytes: bytes.length };
  }

  private begun(request: Request): Response {
    const length = Number(request.headers.get("Upload-Length"));
    const sha256 = hexOf(bytesOfBase64(request.headers.get("Upload-Metadata")!.slice("sha256 ".length)));
    if (this.open?.sha256 !== sha256) this.open = { bytes: new Uint8Array(0), length, sha256 };
    return this.uploadAnswer(201, { Location: "http://service/device/v1/uploads/u-1" });
  }

  private async part(request: Request, body: Uint8Array): Promise<Response> {
    const open = this.open!;
    if (Number(request.headers.get("Upload-Offset")) !== open.bytes.length) return problem("offset_mismatch");
    open.bytes = joined([open.bytes, body]);
    if (open.bytes.length === open.length) await this.took(open.bytes);
    return this.uploadAnswer(204, {});
  }

  private uploadAnswer(status: number, headers: Record<string, string>): Response {
    return new Response(null, { status, headers: { ...headers, "Upload-Offset": String(this.open!.bytes.length) } });
  }

  private evaluated(report: Json): Response {
    if (this.state === "open") this.evaluations.push(report);
    this.state = "accepted";
    return answer(this.receipt());
  }

  private async submitted(report: Json): Promise<Response> {
    if (this.state === "open") {
      if (!this.update || (await sha256Of(this.update)) !== report.update.sha256) return problem("state_conflict");
      this.updates.push(this.update);
      this.reports.push(report);
      this.state = "accepted";
    }
    return answer(this.receipt());
  }

  private receipt() {
    return { assignment_id: this.offer.assignment_id, state: this.state, reason: this.state, retry_after_seconds: 1 };
  }
}

const answer = (message: Json, status = 200): Response => Response.json(message, { status });

export function problem(code: ErrorCode, headers: Record<string, string> = {}, more: Json = {}): Response {
  const { status } = CODES[code];
  const told = { type: `urn:hetlora:error:${code}`, title: code, status, detail: `refused: ${code}`, code, ...more };
  return Response.json(told, { status, headers });
}
