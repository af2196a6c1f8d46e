// Updates to the service: a small one whole, a larger one in parts (tus 1.0), so that it goes on where it was cut.
import { base64Of, bytesOfHex, sha256Of } from "../bytes";
import { isError } from "../errors/errors";
import { noService } from "./answers";
import { DeviceService } from "./service";
import type { Transport } from "./transport";

export const TUS_VERSION = "1.0.0";
export const PART_TYPE = "application/offset+octet-stream";
const PART_BYTES = 2 ** 20;
/** Each part is a row and an object of the service. */
const MOST_PARTS = 1000;
/** Refusals of a part, with no part taken between: whatever the service says then, it does not hold together. */
const MOST_REFUSALS = 3;

/** What each part of an upload of this length has at least, the last one excepted. */
export const smallestPartBytes = (lengthBytes: number): number => Math.ceil(lengthBytes / MOST_PARTS);

/** `sha256 BASE64`: the value of `Upload-Checksum` for a part, of `Upload-Metadata` for the whole. */
export const sha256Pair = (sha256Hex: string): string => `sha256 ${base64Of(bytesOfHex(sha256Hex))}`;

/** Brings updates to the service, in parts of `partBytes` where they are larger. */
export class Uploads {
  constructor(
    private readonly transport: Transport,
    private readonly partBytes = PART_BYTES,
  ) {}

  /**
   * Brings an update there, however often the line is cut on the way: the service knows by the digest what it
   * has. `mayGoOn` is called before each part; what it throws ends the upload, and a later one goes on with it.
   */
  async deliver(assignmentId: string, update: Uint8Array, mayGoOn: () => void = () => undefined): Promise<void> {
    if (update.length <= this.partBytes) {
      mayGoOn();
      await new DeviceService(this.transport).upload(assignmentId, update);
      return;
    }
    const parts = new Parts(this.transport, assignmentId, update, this.partBytes);
    for (let [furthest, refusals] = [0, 0]; parts.thereBytes < update.length; ) {
      mayGoOn();
      try {
        await this.transport.retrying(() => parts.advance());
      } catch (error) {
        const isPassing = (["offset_mismatch", "upload_gone", "not_found"] as const).some((code) => isError(error, code));
        if (!isPassing || ++refusals >= MOST_REFUSALS) throw error;
      }
      if (parts.thereBytes > furthest) [furthest, refusals] = [parts.thereBytes, 0];
    }
  }
}

/** One update on its way; `path` is null where it is in doubt what the service has of it. */
class Parts {
  thereBytes = 0;
  private path: string | null = null;

  constructor(
    private readonly transport: Transport,
    private readonly assignmentId: string,
    private readonly update: Uint8Array,
    private readonly partBytes: number,
  ) {}

  /** One try at the next part; first, in doubt, one at finding out which that is. */
  async advance(): Promise<void> {
    const before = this.thereBytes;
    if (this.path === null) {
      this.path = await this.begin();
      if (this.thereBytes > before) return;
    }
    const path = this.path;
    this.path = null;
    const start = this.thereBytes;
    const size = Math.max(this.partBytes, smallestPartBytes(this.update.length));
    const part = this.update.subarray(start, start + size);
    const answer = await this.send("PATCH", path, part, {
      "Content-Type": PART_TYPE,
      "Upload-Offset": String(start),
      "Upload-Checksum": sha256Pair(await sha256Of(part)),
    });
    if (this.thereBytes <= start) throw this.noService(answer);
    this.path = path;
  }

  private async begin(): Promise<string> {
    const answer = await this.send("POST", `/device/v1/assignments/${this.assignmentId}/uploads`, undefined, {
      "Upload-Length": String(this.update.length),
      "Upload-Metadata": sha256Pair(await sha256Of(this.update)),
    });
    const found = /^.*\/device\/v1\/uploads\/([A-Za-z0-9_-]{1,64})$/.exec(answer.get("Location") ?? "");
    if (!found) throw this.noService(answer);
    return `/device/v1/uploads/${found[1]}`;
  }

  private async send(
    method: string, path: string, body: Uint8Array | undefined, headers: Record<string, string>,
  ): Promise<Headers> {
    const asked = { headers: { ...headers, "Tus-Resumable": TUS_VERSION }, ...(body && { body }) };
    const answer = await this.transport.ask(method, path, asked);
    const offset = answer.get("Upload-Offset") ?? "";
    if (!/^[0-9]{1,16}$/.test(offset) || Number(offset) > this.update.length) throw this.noService(answer);
    this.thereBytes = Number(offset);
    return answer;
  }

  private noService(answer: Headers): Error {
    const got = ["Location", "Upload-Offset"].map((header) => `${header} ${answer.get(header)}`).join(", ");
    return noService(got, `where an upload stands, from ${this.transport.serviceUrl}`);
  }
}
