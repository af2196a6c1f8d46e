// HTTP message signatures of devices: RFC 9421 with Ed25519, in the one form that the service reads.
import { base64Of, bytesOfHex, bytesOfText } from "../bytes";
import { HetloraError } from "../errors/errors";

const LABEL = "hetlora";
const COMPONENTS = '("@method" "@path" "@query" "content-digest")';
const NONCE_BYTES = 24;

/** Who signed (`deviceId`), when (Unix seconds), and a nonce never used twice. */
export interface SignatureParameters {
  created: number;
  nonce: string;
  deviceId: string;
}

export interface SignedRequest {
  method: string;
  /** Percent-encoded, as it stands in the request line. */
  path: string;
  /** Likewise, without its question mark. */
  query: string;
  bodySha256: string;
}

function parametersText({ created, nonce, deviceId }: SignatureParameters): string {
  return `${COMPONENTS};created=${created};nonce="${nonce}";keyid="${deviceId}";alg="ed25519"`;
}

/** The value of `Content-Digest` for a body of this SHA-256. */
export const contentDigest = (sha256Hex: string): string => `sha-256=:${base64Of(bytesOfHex(sha256Hex))}:`;

/** The bytes that are signed (RFC 9421, section 2.5). Throws `authentication_failed` for what has no such form. */
export function signatureBase(parameters: SignatureParameters, request: SignedRequest): Uint8Array {
  const { created, nonce, deviceId } = parameters;
  const isFit =
    /^[ -~]*$/.test(request.method + request.path + request.query) &&
    /^[A-Za-z0-9_-]{16,64}$/.test(nonce) && /^[A-Za-z0-9_-]{1,64}$/.test(deviceId) &&
    Number.isSafeInteger(created) && created >= 0;
  if (!isFit) {
    // A part with a line break would let one signature stand for two requests.
    throw new HetloraError("authentication_failed", "request cannot be signed", {
      got: `${request.method} ${request.path}?${request.query}`,
      expected: "printable ASCII",
    });
  }
  return bytesOfText(
    [
      `"@method": ${request.method.toUpperCase()}`,
      `"@path": ${request.path}`,
      `"@query": ?${request.query}`,
      `"content-digest": ${contentDigest(request.bodySha256)}`,
      `"@signature-params": ${parametersText(parameters)}`,
    ].join("\n"),
  );
}

/** The headers that go with a signature over `signatureBase`. */
export function signatureHeaders(
  parameters: SignatureParameters,
  bodySha256: string,
  signature: Uint8Array,
): Record<string, string> {
  return {
    "Content-Digest": contentDigest(bodySha256),
    "Signature-Input": `${LABEL}=${parametersText(parameters)}`,
    Signature: `${LABEL}=:${base64Of(signature)}:`,
  };
}

/** A nonce of 32 characters. */
export function newNonce(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  return base64Of(bytes).replaceAll("+", "-").replaceAll("/", "_");
}
