// Answers of an adapter that is kept, from a worker of their own: training goes on beside it.
import { tensorsOf } from "../tensors/adapter";
import { Calls } from "../training/calls";
import type { Bundles } from "../transport/bundles";
import type { AdapterKind, Adapters, StoredRound } from "./adapters";
import { classifierFiles, type Classified, type ClassifierOpening } from "./opening";

/** The model stays open for so long after an answer: it takes the memory of a second one. */
const OPEN_SECONDS = 60;

export class Answers {
  private open: { name: string; calls: Promise<Calls> } | null = null;
  private closing: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly adapters: Adapters,
    private readonly bundles: () => Promise<Bundles>,
    private readonly startWorker: () => Worker,
  ) {}

  /** The rounds whose adapters can be asked, the newest first. */
  rounds(): Promise<readonly StoredRound[]> {
    return this.adapters.rounds();
  }

  /**
   * The labels of a text under one of the adapters that are kept, the likeliest first. What is missing of its bundle
   * is fetched. Throws `no_adapter`, `bundle_invalid`, and as a download.
   */
  async classify(text: string, round: StoredRound, kind: AdapterKind): Promise<Classified[]> {
    clearTimeout(this.closing);
    const name = JSON.stringify([round, kind]);
    if (this.open?.name !== name) {
      this.close();
      this.open = { name, calls: this.opened(round, kind) };
    }
    try {
      return await (await this.open!.calls).call<Classified[]>("classify", text);
    } catch (error) {
      this.close(); // the next question opens it anew
      throw error;
    } finally {
      clearTimeout(this.closing);
      if (this.open) this.closing = setTimeout(() => this.close(), 1000 * OPEN_SECONDS);
    }
  }

  /** Frees the memory of the model; a question opens it again. */
  close(): void {
    clearTimeout(this.closing);
    void this.open?.calls.then((calls) => calls.end()).catch(() => undefined);
    this.open = null;
  }

  private async opened(round: StoredRound, kind: AdapterKind): Promise<Calls> {
    const bundles = await this.bundles();
    const manifest = await bundles.manifest(round.bundle);
    const paths = classifierFiles(manifest);
    const adapter = await this.adapters.read(round, kind, manifest.adapter);
    await bundles.fetch(manifest, paths);
    const files = new Map<string, Uint8Array>();
    for (const path of paths) files.set(path, await bundles.file(manifest, path));
    const calls = new Calls(this.startWorker());
    const { amplification } = round;
    const asked: ClassifierOpening = { manifest, files, factors: tensorsOf(adapter), amplification };
    try {
      await calls.call("openClassifier", asked, [...files.values()].map((file) => file.buffer as ArrayBuffer));
    } catch (error) {
      calls.end();
      throw error;
    }
    return calls;
  }
}
