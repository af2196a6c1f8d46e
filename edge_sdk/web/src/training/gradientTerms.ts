// What changes the gradients of all numbers at once, in place: FedProx's term, and clipping.

// As in `torch.nn.utils.clip_grad_norm_`.
const NORM_SLACK = 1e-6;

/** Adds FedProx's mu (w - w_begun) (arXiv 1812.06127), and answers mu/2 ||w - w_begun||^2. */
export function addProximal(
  gradients: Float32Array,
  numbers: Float32Array,
  begun: Float32Array,
  proximal: number,
): number {
  let squares = 0;
  const mu = Math.fround(proximal);
  for (let at = 0; at < gradients.length; at += 1) {
    const change = Math.fround((numbers[at] as number) - (begun[at] as number));
    squares += change * change;
    gradients[at] = (gradients[at] as number) + Math.fround(change * mu);
  }
  return (proximal / 2) * squares;
}

/** Scales gradients down to this norm where theirs is larger, and answers what it was. */
export function clipNorm(gradients: Float32Array, maxNorm: number): number {
  const norm = Math.sqrt(gradients.reduce((sum, own) => sum + own * own, 0));
  const share = maxNorm / (norm + NORM_SLACK);
  if (share >= 1) return norm;
  const scale = Math.fround(share);
  for (let at = 0; at < gradients.length; at += 1) gradients[at] = (gradients[at] as number) * scale;
  return norm;
}
