import { HetloraError } from "../errors/errors";
import type { Manifest } from "../messages/manifest";

/** What of a bundle is for pages. Throws `bundle_invalid` where it was exported without. */
export function webFiles(manifest: Manifest): NonNullable<Manifest["web"]> {
  if (manifest.web !== null) return manifest.web;
  throw new HetloraError("bundle_invalid", "the bundle has no files for web", {
    expected: "one exported with --runtime web",
  });
}
