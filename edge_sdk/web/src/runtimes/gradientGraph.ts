// A bundle's training graph, made to answer gradients: docs/adr/0029-android-and-browser.md.
//
// The bundle's graph adds each gradient to a buffer that ONNX Runtime's training API owns. That API, in a browser,
// takes no weights from beside the graph, one fixed learning rate, and gives no state back. An ordinary session needs
// none of it: here the sums are left out, and each gradient becomes an output. Ranks stay symbols.
// Numbers of fields are those of onnx.proto, ONNX 1.16.
import { joined } from "../bytes";
import { HetloraError } from "../errors/errors";
import { delimited, fields, text, texts, DELIMITED, type Field } from "./protobuf";

const MODEL_GRAPH = 7;
const GRAPH_NODE = 1;
const GRAPH_INPUT = 11;
const GRAPH_OUTPUT = 12;
const NODE_INPUT = 1;
const NODE_OPERATOR = 4;
const VALUE_NAME = 1;
const ACCUMULATOR = "InPlaceAccumulatorV2";
const BUFFER = "_grad.accumulation.buffer";
const RESET = "lazy_reset_grad";

export interface GradientGraph {
  bytes: Uint8Array;
  /** The name of the output that is the gradient of a factor, by the factor's key. */
  gradients: ReadonlyMap<string, string>;
}

/** The training graph of a bundle with gradients as outputs. Throws `bundle_invalid`. */
export function gradientGraph(training: Uint8Array): GradientGraph {
  const gradients = new Map<string, string>();
  const pieces: Uint8Array[] = [];
  for (const field of fields(training)) {
    if (field.number !== MODEL_GRAPH || field.wireType !== DELIMITED) {
      pieces.push(training.subarray(field.start, field.last));
    } else {
      pieces.push(delimited(MODEL_GRAPH, withoutSums(training, field, gradients)));
    }
  }
  if (!gradients.size) {
    throw new HetloraError("bundle_invalid", "the training graph tells no gradients", {
      expected: `a node ${ACCUMULATOR} for each factor`,
    });
  }
  return { bytes: joined(pieces), gradients };
}

function withoutSums(data: Uint8Array, graph: Field, gradients: Map<string, string>): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (const field of fields(data, graph.first, graph.last)) {
    if (field.number === GRAPH_NODE && text(data, field, NODE_OPERATOR) === ACCUMULATOR) {
      const [buffer = "", gradient = ""] = texts(data, field, NODE_INPUT);
      gradients.set(buffer.slice(0, -BUFFER.length), gradient);
    } else if (!isOfSums(data, field)) pieces.push(data.subarray(field.start, field.last));
  }
  for (const gradient of new Set(gradients.values())) {
    pieces.push(delimited(GRAPH_OUTPUT, delimited(VALUE_NAME, gradient)));
  }
  return joined(pieces);
}

function isOfSums(data: Uint8Array, field: Field): boolean {
  if (field.number !== GRAPH_INPUT && field.number !== GRAPH_OUTPUT) return false;
  const name = text(data, field, VALUE_NAME);
  return name === RESET || name.endsWith(BUFFER) || name.endsWith("_grad.accumulation.out");
}
