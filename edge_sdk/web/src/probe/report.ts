// What of a probe the planner reckons with and the service is told.
import type { CapabilityReport } from "../messages/device";
import type { BrowserFacts } from "./browser";

const GIB = 2 ** 30;
/** Where a browser does not tell: what the smallest phones have that run a current browser. */
const UNKNOWN_MEMORY_BYTES = 2 * GIB;
const UNKNOWN_DISK_BYTES = GIB;
/** Of the device's memory a page may count on; WebAssembly with 32-bit places has 4 GiB at most, half of it is safe. */
const PAGE_SHARE = 0.5;
const MOST_PAGE_BYTES = 2 * GIB;

/** How much more the browser would keep. */
export const freeBytesOf = (facts: BrowserFacts): number => Math.floor(facts.diskFreeBytes ?? UNKNOWN_DISK_BYTES);

/**
 * No page learns what memory is free, so that half of the device's is taken for it, up to 2 GiB. Cores are the
 * threads that training has: one where the page is not isolated, however many the device has.
 */
export function capabilitiesOf(facts: BrowserFacts, matmulFlopsPerSecond: number): CapabilityReport {
  const total = facts.memoryBytes ?? UNKNOWN_MEMORY_BYTES;
  return {
    source: "measured",
    cores: facts.threads,
    memory_total_bytes: total,
    memory_available_bytes: Math.min(PAGE_SHARE * total, MOST_PAGE_BYTES),
    matmul_flops_per_second: matmulFlopsPerSecond,
    disk_free_bytes: freeBytesOf(facts),
    traffic_bytes_per_round: null,
    architecture: null,
    accelerator: null,
    network: facts.network,
    memory_bandwidth_bytes_per_second: null,
    download_bytes_per_second: null,
  };
}
