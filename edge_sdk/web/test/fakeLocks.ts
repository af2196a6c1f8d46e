// Web Locks as far as the client uses them: one holder at a time, the others in order.

interface Waiting {
  name: string;
  work: (lock: object | null) => unknown;
  done: (value: unknown) => void;
  fail: (error: unknown) => void;
}

export class FakeLocks {
  private readonly held = new Set<string>();
  private waiting: Waiting[] = [];

  request(name: string, ...rest: unknown[]): Promise<unknown> {
    const work = rest.at(-1) as Waiting["work"];
    const options = (rest.length > 1 ? rest[0] : {}) as LockOptions;
    return new Promise((done, fail) => {
      if (options.ifAvailable && this.held.has(name)) return done(work(null));
      const own = { name, work, done, fail };
      options.signal?.addEventListener("abort", () => {
        this.waiting = this.waiting.filter((other) => other !== own);
        fail(options.signal!.reason);
      });
      this.waiting.push(own);
      this.grant();
    });
  }

  /** Gives a lock back as a browser does whose holder is no more. */
  release(name: string): void {
    this.held.delete(name);
    this.grant();
  }

  asManager(): LockManager {
    return this as unknown as LockManager;
  }

  private grant(): void {
    const place = this.waiting.findIndex(({ name }) => !this.held.has(name));
    if (place < 0) return;
    const [{ name, work, done, fail }] = this.waiting.splice(place, 1) as [Waiting];
    this.held.add(name);
    Promise.resolve(work({})).then(done, fail).finally(() => this.release(name));
  }
}
