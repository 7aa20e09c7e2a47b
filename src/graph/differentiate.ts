/**
 * Reverse-mode differentiation of a graph (Griewank & Walther 2008, ch. 3): walks the nodes backwards and lets every
 * op's rule append the nodes of its gradient. Gradients of parameters are added to float32 buffers of their own, so
 * several widths and micro-batches sum up in one set; gradients of values are values of the same graph, and the memory
 * plan keeps what the backward pass still reads.
 *
 * A value used in several places gets the sum of its gradients. A value that is used by columns gets one gradient
 * value, and each use writes its columns.
 *
 * With recomputation, the nodes of a region run a second time right before their backward pass: gradient rules then
 * read the second values, so the first ones end where the forward pass last needs them.
 */

import { MatMambaError } from '../errors.ts';
import { type Graph, type GraphNode, type ParameterSpec, Sym } from './graph.ts';

/** Adds two symbols of one shape; given by the caller because the graph knows no ops. */
export type AddSymbols = (a: Sym, b: Sym) => Sym;

export interface DifferentiateOptions {
  readonly add: AddSymbols;
  /** Which parameters are trained; all unless given. */
  readonly trains?: (parameter: ParameterSpec) => boolean;
  /** Names of graph inputs whose gradients are wanted too. */
  readonly inputs?: readonly string[];
  /** Compute the values inside regions again in the backward pass instead of keeping them (Chen et al. 2016). */
  readonly recompute?: boolean;
}

/** The buffer that a parameter's gradient is added to. */
export function gradientSpec({ name, shape, layout }: ParameterSpec): ParameterSpec {
  return { name: `${name}#gradient`, shape, layout, precise: true };
}

/** One contribution to the gradient of a value: these columns of it. */
interface Gradient {
  whole: Sym | undefined;
  /** The value that uses by columns write to, and the columns written so far. */
  parts: Sym | undefined;
  readonly written: { column: number; width: number }[];
}

/**
 * Appends the backward pass for outputs with known gradients (`seeds`: output symbol, its gradient).
 * @returns the gradients of the inputs asked for
 */
export function differentiate(
  graph: Graph,
  seeds: ReadonlyMap<Sym, Sym>,
  options: DifferentiateOptions,
): Readonly<Record<string, Sym>> {
  const { add, trains = () => true, inputs: wantedInputs = [], recompute = false } = options;
  const wanted = new Set(wantedInputs.map((name) => graph.inputs.get(name)!.value.id));
  const forward = [...graph.nodes];
  const depends = dependentValues(forward, (sym) =>
    sym.value.kind === 'parameter' ? trains(sym.value.parameter) : wanted.has(sym.value.id),
  );
  const gradients = new Map<number, Gradient>();
  const gradientOf = (id: number): Gradient => {
    let gradient = gradients.get(id);
    if (!gradient) gradients.set(id, (gradient = { whole: undefined, parts: undefined, written: [] }));
    return gradient;
  };

  /** Takes in one gradient of `sym`. */
  const receive = (sym: Sym, gradient: Sym): void => {
    const held = gradientOf(sym.value.id);
    if (held.parts && gradient.value === held.parts.value) return;
    if (coversWhole(sym)) held.whole = held.whole ? add(held.whole, gradient) : gradient;
    else throw new MatMambaError('INTERNAL', `the gradient of columns of ${sym.value.name} was not written in place`);
  };

  /** The columns where the gradient of a view goes. */
  const placeOf = (sym: Sym): Sym | undefined => {
    if (coversWhole(sym)) return undefined;
    const held = gradientOf(sym.value.id);
    const clash = held.written.some(({ column, width }) => sym.column < column + width && column < sym.column + sym.width);
    if (clash)
      throw new MatMambaError(
        'INTERNAL',
        `columns of ${sym.value.name} are used twice; their gradients would overwrite each other`,
      );
    held.parts ??= graph.value(`${sym.value.name}#gradient`, sym.value.shape);
    held.written.push({ column: sym.column, width: sym.width });
    return new Sym(graph, held.parts.value, sym.column, sym.shape);
  };

  const total = (sym: Sym): Sym | undefined => {
    const held = gradients.get(sym.value.id);
    if (!held) return undefined;
    if (held.whole && held.parts) return add(held.whole, held.parts);
    return held.whole ?? held.parts;
  };

  for (const [sym, gradient] of seeds) receive(sym, gradient);
  const replays = new Map<number, Map<number, Sym>>();
  /** The symbol a rule reads: the recomputed one inside a region, else the kept one. */
  const replayed = (node: GraphNode, sym: Sym): Sym => {
    if (!recompute || node.region === 0) return sym;
    let values = replays.get(node.region);
    if (!values)
      replays.set(
        node.region,
        (values = replayRegion(
          graph,
          forward.filter(({ region }) => region === node.region),
        )),
      );
    const again = values.get(sym.value.id);
    return again ? new Sym(graph, again.value, sym.column, sym.shape) : sym;
  };

  for (const node of forward.toReversed()) {
    const grads: Record<string, Sym> = {};
    for (const [name, sym] of Object.entries(node.outputs)) {
      const gradient = total(sym);
      if (gradient) grads[name] = gradient;
    }
    if (Object.keys(grads).length === 0 || !dependsOnWanted(node, depends, trains)) continue;
    const results = graph.in(`${node.scope}.backward`, () =>
      applyRule(graph, node, grads, depends, trains, placeOf, (sym) => replayed(node, sym)),
    );
    for (const [name, gradient] of Object.entries(results)) {
      const sym = node.inputs[name];
      if (sym && gradient && depends.has(sym.value.id)) receive(sym, gradient);
    }
  }
  return Object.fromEntries(
    wantedInputs.map((name) => {
      const gradient = total(graph.inputs.get(name)!);
      if (!gradient) throw new MatMambaError('INTERNAL', `nothing that is differentiated depends on '${name}'`);
      return [name, gradient];
    }),
  );
}

function applyRule(
  graph: Graph,
  node: GraphNode,
  grads: Readonly<Record<string, Sym>>,
  depends: ReadonlySet<number>,
  trains: (parameter: ParameterSpec) => boolean,
  placeOf: (sym: Sym) => Sym | undefined,
  replayed: (sym: Sym) => Sym,
): Readonly<Record<string, Sym | undefined>> {
  const { op, inputs, outputs, attributes } = node;
  if (!op.gradient) throw new MatMambaError('INTERNAL', `${op.name} has no gradient rule`);
  const wants = (name: string): boolean => {
    const sym = inputs[name];
    return sym !== undefined && depends.has(sym.value.id);
  };
  const again = (syms: Readonly<Record<string, Sym>>): Record<string, Sym> =>
    Object.fromEntries(Object.entries(syms).map(([name, sym]) => [name, replayed(sym)]));
  return op.gradient({
    inputs: again(inputs),
    outputs: again(outputs),
    grads,
    attributes,
    wants,
    into: (name) => (wants(name) ? placeOf(inputs[name]!) : undefined),
    accumulate: (name) => {
      const value = inputs[name]?.value;
      return value?.kind === 'parameter' && trains(value.parameter) ? graph.parameter(gradientSpec(value.parameter)) : undefined;
    },
  });
}

/** Appends a region's nodes once more; the new symbol of each value that they write, by the old value's id. */
function replayRegion(graph: Graph, nodes: readonly GraphNode[]): Map<number, Sym> {
  const values = new Map<number, Sym>();
  const moved = (sym: Sym): Sym => {
    const again = values.get(sym.value.id);
    return again ? new Sym(graph, again.value, sym.column, sym.shape) : sym;
  };
  for (const { op, inputs, outputs, attributes } of nodes) {
    const again = Object.fromEntries(Object.entries(inputs).map(([name, sym]) => [name, moved(sym)]));
    const fresh = Object.fromEntries(
      Object.entries(outputs).map(([name, sym]) => [
        name,
        graph.value(`${sym.value.name}#again`, sym.value.shape, sym.value.dtype),
      ]),
    );
    for (const [name, sym] of Object.entries(outputs)) values.set(sym.value.id, fresh[name]!);
    graph.addNode({ op, inputs: again, outputs: fresh, attributes });
  }
  return values;
}

/** Whether a symbol is all columns of its value. */
function coversWhole({ column, shape, value }: Sym): boolean {
  return column === 0 && shape.at(-1) === value.shape.at(-1);
}

function dependsOnWanted(node: GraphNode, depends: ReadonlySet<number>, trains: (parameter: ParameterSpec) => boolean): boolean {
  return Object.values(node.inputs).some(
    ({ value }) => depends.has(value.id) || (value.kind === 'parameter' && trains(value.parameter)),
  );
}

/** Values that a wanted input or a trained parameter flows into, the wanted inputs included. */
function dependentValues(nodes: readonly GraphNode[], isWanted: (sym: Sym) => boolean): Set<number> {
  const depends = new Set<number>();
  for (const node of nodes) {
    const inputs = Object.values(node.inputs);
    for (const sym of inputs) if (sym.value.kind !== 'parameter' && isWanted(sym)) depends.add(sym.value.id);
    if (inputs.some((sym) => depends.has(sym.value.id) || isWanted(sym))) {
      for (const { value } of Object.values(node.outputs)) depends.add(value.id);
    }
  }
  return depends;
}
