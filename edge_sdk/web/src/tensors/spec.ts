// What every adapter of one bundle has in common.
import { HetloraError } from "../errors/errors";
import { checked, integer, list, object, PRINTABLE, real, refuse, required, text, type Of } from "../messages/schema";

// Far above any model for small devices, and far below what memory and file formats can take.
const MAX_FEATURES = 2 ** 24;
const MAX_MODULES = 100_000;
/** In float32, at full rank. */
export const MAX_ADAPTER_BYTES = 2 ** 30;

const features = integer({ least: 1, most: MAX_FEATURES });

/** One linear layer that LoRA adapts: y = W x with W of (out_features, in_features). */
const moduleSpec = object({
  name: required(checked(text({ pattern: PRINTABLE }), (own, place) => own || refuse(place, own, "a name"))),
  in_features: required(features),
  out_features: required(features),
});
export type ModuleSpec = Of<typeof moduleSpec>;

const form = object({
  modules: required(list(moduleSpec, { shortest: 1, longest: MAX_MODULES })),
  scaling: required(real({ above: 0 })),
  max_rank: required(integer({ least: 1 })),
});

/** `scaling` multiplies B A at every rank alike; `modules` are ordered by name. */
export type AdapterSpec = Of<typeof form>;
export const adapterSpec = checked(form, checkSpec);

function checkSpec(spec: AdapterSpec): void {
  const names = spec.modules.map((module) => module.name);
  if (names.some((name, at) => at > 0 && compareText(names[at - 1]!, name) >= 0)) {
    throw new HetloraError("spec_mismatch", "modules must be unique and ordered by name");
  }
  // Beyond min(in, out) extra rows of A and columns of B add nothing to B A.
  const widest = Math.min(...spec.modules.map((module) => Math.min(module.in_features, module.out_features)));
  if (spec.max_rank > widest) {
    throw new HetloraError("rank_out_of_range", "max_rank must fit every module", {
      got: spec.max_rank,
      expected: `1 to ${widest}`,
    });
  }
  const largest = 4 * parametersPerRank(spec) * spec.max_rank;
  if (largest > MAX_ADAPTER_BYTES) {
    throw new HetloraError("spec_mismatch", "an adapter at max_rank is too large", {
      got: `${largest} bytes`,
      expected: `up to ${MAX_ADAPTER_BYTES}`,
    });
  }
}

/** How many numbers one unit of rank adds over all modules. */
export function parametersPerRank(spec: AdapterSpec): number {
  return spec.modules.reduce((sum, module) => sum + module.in_features + module.out_features, 0);
}

/** The order of Python's texts, by code points: JavaScript's own is by halves of surrogate pairs. */
export function compareText(left: string, right: string): number {
  const [a, b] = [[...left], [...right]];
  for (let at = 0; at < Math.min(a.length, b.length); at++) {
    const difference = a[at]!.codePointAt(0)! - b[at]!.codePointAt(0)!;
    if (difference) return difference;
  }
  return a.length - b.length;
}
