// Signed HTTP with retries: bytes in, bytes out, every fault an error with a code.
import { sha256Of } from "../bytes";
import { HetloraError } from "../errors/errors";
import type { Identity } from "../identity/identity";
import { newNonce, signatureBase, signatureHeaders } from "../identity/signature";
import { askedSeconds, ErrorAnswer, LineFault, readAnswer, toldError } from "./answers";
import { retrying, type Pauses } from "./retries";

/** Of a whole exchange: the last update of a round may have the service aggregate before it answers. */
const EXCHANGE_SECONDS = 60;
/** The same where many bytes may go over a slow line; a download that is cut goes on by a range. */
const TRANSFER_SECONDS = 600;
const TRANSFERS = ["GET", "PUT", "PATCH"];
/** A visit that was asked to end waits so long for an answer that may be on its way. */
const STOPPED_ANSWER_SECONDS = 2;

/** What a transport goes by; tests have their own. */
export interface Surroundings extends Pauses {
  fetch(request: Request): Promise<Response>;
  /** Unix seconds, for signatures. */
  clock(): number;
  /** Seconds, for differences. */
  timer(): number;
}

export interface Asked {
  body?: Uint8Array;
  headers?: Record<string, string>;
}

/** Requests to one service, signed as one device; each try with its own time and nonce. */
export class Transport {
  /** The service's address without a slash at its end. */
  readonly serviceUrl: string;

  /** Throws `settings_invalid` for an address that is none of a service. */
  constructor(
    serviceUrl: string,
    private readonly identity: Identity,
    readonly surroundings: Surroundings = browserSurroundings(),
  ) {
    this.serviceUrl = checkedAddress(serviceUrl);
  }

  /**
   * Sends a request until it is answered, and answers the body. Throws `service_unreachable` without an answer
   * of a hetlora service, or what the service's problem document tells of.
   */
  exchange(method: string, path: string, asked: Asked = {}): Promise<Uint8Array> {
    return this.retrying(async () => readAnswer(await this.open(method, path, asked)));
  }

  /** Does it again after faults of the line, 408, 429, 460, 5xx and `replayed_request`, with full jitter. */
  async retrying<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await retrying(action, this.surroundings);
    } catch (error) {
      if (error instanceof ErrorAnswer) throw toldError(error, this.serviceUrl);
      if (!(error instanceof LineFault)) throw error;
      throw new HetloraError("service_unreachable", "the service does not answer", {
        got: error.message, expected: `a hetlora service at ${this.serviceUrl}`, cause: error,
      });
    }
  }

  /** One signed try; for use within `retrying`, which gives its errors their codes. */
  async open(method: string, path: string, asked: Asked = {}): Promise<Response> {
    const request = await this.signed(method, path, asked);
    let response: Response;
    try {
      response = await this.surroundings.fetch(request);
    } catch (error) {
      // Fetch says as little of a refused redirection as of a line that is cut.
      throw new LineFault(String(error));
    }
    if (response.ok) return response;
    const body = await readAnswer(response);
    throw new ErrorAnswer(response.status, body, askedSeconds(response.headers));
  }

  /** One signed try for an answer that is all in its headers. */
  async ask(method: string, path: string, asked: Asked = {}): Promise<Headers> {
    const response = await this.open(method, path, asked);
    await readAnswer(response);
    return response.headers;
  }

  private async signed(method: string, path: string, asked: Asked): Promise<Request> {
    const url = new URL(this.serviceUrl + path);
    const bodySha256 = await sha256Of(asked.body ?? new Uint8Array(0));
    const parameters = {
      created: Math.floor(this.surroundings.clock()), nonce: newNonce(), deviceId: this.identity.deviceId,
    };
    const base = signatureBase(parameters, {
      method, path: url.pathname, query: url.search.slice(1), bodySha256,
    });
    const signature = signatureHeaders(parameters, bodySha256, await this.identity.sign(base));
    return new Request(url, {
      method,
      headers: { ...asked.headers, ...signature },
      body: asked.body ?? null,
      // No signature goes elsewhere, and no cache stands for the service.
      redirect: "error",
      cache: "no-store",
      credentials: "omit",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(1000 * (TRANSFERS.includes(method) ? TRANSFER_SECONDS : EXCHANGE_SECONDS)),
    });
  }
}

function checkedAddress(serviceUrl: string): string {
  const expected = "http(s)://HOST[:PORT]";
  if (!URL.canParse(serviceUrl)) throw new HetloraError("settings_invalid", "service_url is no address", { expected });
  const url = new URL(serviceUrl);
  if (url.username || url.password) {
    throw new HetloraError("settings_invalid", "service_url with a user or password", { expected });
  }
  if (!["http:", "https:"].includes(url.protocol) || url.search || url.hash) {
    throw new HetloraError("settings_invalid", "service_url is no address of a service", { got: serviceUrl, expected });
  }
  return url.href.replace(/\/+$/, "");
}

/** The clock, the line and the chance of a browser, or of Node; `stop` ends requests, and waits between two tries. */
export function browserSurroundings(stop?: AbortSignal): Surroundings {
  const late = new AbortController();
  stop?.addEventListener("abort", () => setTimeout(() => late.abort(), 1000 * STOPPED_ANSWER_SECONDS));
  return {
    fetch: (request) => fetch(request, { signal: AbortSignal.any([request.signal, late.signal]) }),
    clock: () => Date.now() / 1000,
    timer: wakefulTimer(),
    random: () => Math.random(),
    sleep: (seconds) => slept(seconds, stop),
  };
}

/** Seconds, those among them in which the computer slept: a browser's timer may stand still then, and its clock be set. */
export function wakefulTimer(timer = () => performance.now(), clock = () => Date.now()): () => number {
  let [milliseconds, timed, clocked] = [0, timer(), clock()];
  return () => {
    const [timedNow, clockedNow] = [timer(), clock()];
    milliseconds += Math.max(timedNow - timed, clockedNow - clocked);
    [timed, clocked] = [timedNow, clockedNow];
    return milliseconds / 1000;
  };
}

function slept(seconds: number, stop?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => reject(new HetloraError("stopped", "this visit was asked to end"));
    if (stop?.aborted) return end();
    const waiting = setTimeout(() => {
      stop?.removeEventListener("abort", ended);
      resolve();
    }, 1000 * seconds);
    const ended = () => {
      clearTimeout(waiting);
      end();
    };
    stop?.addEventListener("abort", ended, { once: true });
  });
}
