// A curve over the steps of a training, drawn as SVG.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, MARGIN] = [320, 120, 4];
/** More than the picture is wide. */
const MOST_POINTS = 500;
const BUCKET = 4;

export interface Point {
  step: number;
  value: number;
}

/** Points with one more, thinned where they are too many: of every four the least and the largest stay, and both ends. */
export function withPoint(points: readonly Point[], point: Point): Point[] {
  if (points.length < MOST_POINTS) return [...points, point];
  const thinned: Point[] = [];
  for (let start = 0; start < points.length; start += BUCKET) {
    const bucket = points.slice(start, start + BUCKET);
    const least = bucket.reduce((one, other) => (other.value < one.value ? other : one));
    const most = bucket.reduce((one, other) => (other.value > one.value ? other : one));
    thinned.push(...bucket.filter((own) => own === least || own === most || own === points[0]));
  }
  return [...thinned, point];
}

/** The places of points in a picture; the largest value is at its top, and 0 or a smaller value at its bottom. */
export function placesOf(points: readonly Point[], steps: number): [number, number][] {
  const least = points.reduce((one, { value }) => Math.min(one, value), 0);
  const most = points.reduce((one, { value }) => Math.max(one, value), Number.MIN_VALUE);
  return points.map(({ step, value }) => [
    MARGIN + ((WIDTH - 2 * MARGIN) * step) / Math.max(steps, 1),
    HEIGHT - MARGIN - ((HEIGHT - 2 * MARGIN) * (value - least)) / (most - least),
  ]);
}

/** Draws the points into an element; each drawing is whole. */
export function drawCurve(into: Element, points: readonly Point[], steps: number, name: string): void {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  picture.setAttribute("role", "img");
  const last = points.at(-1);
  picture.setAttribute("aria-label", last ? `${name}: ${last.value.toFixed(3)} after step ${last.step} of ${steps}` : name);
  const places = placesOf(points, steps);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", places.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "));
  picture.append(line);
  for (const [x, y] of places.slice(-1)) {
    const dot = document.createElementNS(SVG, "circle");
    for (const [key, value] of Object.entries({ cx: x, cy: y, r: 3 })) dot.setAttribute(key, String(value));
    picture.append(dot);
  }
  into.replaceChildren(picture);
}
