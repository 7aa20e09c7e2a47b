/**
 * The op contract: `defineOp` turns one declaration (names, axes, attributes, cost) into the function that model code
 * calls while it traces.
 *
 * Axes are letters. `*` stands for all leading axes (rows); a trailing `?` on an operand's axes makes it optional;
 * `matrix`, `vector`, `taps` and `state` name operands that are stored apart; with axes behind the word these are matched,
 * without them the op checks the shape itself. A letter must have one size in all operands that name it.
 */

import { MatMambaError } from '../errors.ts';
import { type Attributes, type Graph, type GraphNode, type OpDefinition, type Sym } from '../graph/graph.ts';
import { type Shape, formatShape } from '../tensor/tensor.ts';

/** Sizes of the axes of one call: letters by name, `rows` for the product of the leading axes, `leading` themselves. */
export interface Axes {
  readonly [letter: string]: number;
}
export interface CallShapes {
  readonly axes: Axes;
  readonly leading: Shape;
}

export interface OutputSpec {
  readonly shape: Shape;
  readonly dtype?: 'f32' | 'i32';
}

/** What a gradient rule sees of the node it differentiates. */
export interface GradientCall<I extends string, O extends string, A> {
  readonly inputs: Inputs<I>;
  readonly outputs: Outputs<O>;
  /** Gradients of the outputs; absent where nothing depends on one. */
  readonly grads: Readonly<Partial<Record<O, Sym>>>;
  readonly attributes: A;
  /** Whether an input's gradient is wanted. */
  readonly wants: (input: I) => boolean;
  /** Where an input's gradient must be written because the input is some columns of a value; undefined: anywhere. */
  readonly into: (input: I) => Sym | undefined;
  /** The float32 buffer that a parameter's gradient is added to; undefined when it is not trained. */
  readonly accumulate: (input: I) => Sym | undefined;
}

/** Adds the nodes that compute the inputs' gradients, adds parameter gradients to their buffers, returns the others. */
export type GradientRule<I extends string, O extends string, A> = (
  call: GradientCall<I, O, A>,
) => Partial<Record<I, Sym | undefined>>;

interface OpDeclaration<I extends string, O extends string, A extends Attributes> {
  readonly name: string;
  readonly inputs: Readonly<Record<I, string>>;
  readonly outputs: Readonly<Record<O, string | ((call: CallShapes, attributes: Widened<A>) => OutputSpec)>>;
  /** Defaults; a call may leave these out. */
  readonly attributes: A;
  readonly flops: (axes: Axes, attributes: Widened<A>) => number;
  readonly inPlace?: Readonly<Partial<Record<NoInfer<O>, NoInfer<I>>>>;
  /** Without a rule the op is not differentiable, which is an error only where a gradient would have to pass. */
  readonly gradient?: GradientRule<NoInfer<I>, NoInfer<O>, Widened<A>>;
  /** Extra checks of a call. @throws SHAPE */
  readonly check?: (inputs: Readonly<Record<string, Sym | undefined>>, attributes: Widened<A>, call: CallShapes) => void;
}

/** Defaults are inferred as literals; a call may give any value of their kind. */
type Widened<A> = {
  readonly [K in keyof A]: A[K] extends boolean ? boolean : A[K] extends number ? number : A[K] extends string ? string : A[K];
};

type Inputs<I extends string> = Readonly<Partial<Record<I, Sym | undefined>>>;
type Outputs<O extends string> = Readonly<Record<O, Sym>>;

export interface Op<
  I extends string = string,
  O extends string = string,
  A extends Attributes = Attributes,
> extends OpDefinition {
  /** `into` names symbols that outputs are written to in place of fresh values. */
  (inputs: Inputs<I>, attributes?: Partial<Widened<A>>, into?: Readonly<Partial<Record<O, Sym | undefined>>>): Outputs<O>;
  readonly inputAxes: Readonly<Record<I, string>>;
  readonly outputNames: readonly O[];
  readonly defaults: A;
}

const UNSHAPED = new Set(['matrix', 'vector', 'taps', 'state']);

/** Matches the operands' shapes with the declared axes. @throws SHAPE naming operand, expected and got */
function matchAxes(
  name: string,
  declared: Readonly<Record<string, string>>,
  inputs: Readonly<Record<string, Sym | undefined>>,
): CallShapes {
  const axes: Record<string, number> = {};
  let leading: Shape | undefined;
  for (const [operand, declaration] of Object.entries(declared)) {
    const optional = declaration.endsWith('?');
    const letters = (optional ? declaration.slice(0, -1) : declaration).split(' ');
    const sym = inputs[operand];
    if (!sym) {
      if (optional) continue;
      throw new MatMambaError('INTERNAL', `${name} was called without '${operand}'`);
    }
    if (UNSHAPED.has(letters[0]!) && letters.length === 1) continue;
    if (UNSHAPED.has(letters[0]!)) letters.shift();
    const { shape } = sym;
    const fail = (): never => {
      const expected = letters.map((letter) => (letter === '*' ? '...' : (axes[letter] ?? letter))).join(', ');
      throw new MatMambaError('SHAPE', `${name}: '${operand}' expected (${expected}), got ${formatShape(shape)}`);
    };
    const named = letters[0] === '*' ? letters.slice(1) : letters;
    if (letters[0] === '*') {
      const mine = shape.slice(0, shape.length - named.length);
      if (leading && mine.reduce((a, b) => a * b, 1) !== leading.reduce((a, b) => a * b, 1)) fail();
      leading ??= mine;
    } else if (shape.length !== named.length) fail();
    const tail = shape.slice(shape.length - named.length);
    for (const [i, letter] of named.entries()) {
      if (axes[letter] !== undefined && axes[letter] !== tail[i]) fail();
      axes[letter] = tail[i]!;
    }
  }
  leading ??= [];
  return { axes: { ...axes, rows: leading.reduce((a, b) => a * b, 1) }, leading };
}

/** Declares an op; the result is called by model code with symbols and returns symbols. */
export function defineOp<I extends string, O extends string, A extends Attributes>(
  declaration: OpDeclaration<I, O, A>,
): Op<I, O, A> {
  const { name, inputs: declared, outputs, attributes: defaults } = declaration;
  const call = (given: Inputs<I>, partial: Partial<Widened<A>> = {}, into?: Partial<Record<O, Sym | undefined>>): Outputs<O> => {
    const inputs = Object.fromEntries(Object.entries(given).filter(([, sym]) => sym)) as Record<string, Sym>;
    const attributes = { ...defaults, ...partial } as Widened<A> & Attributes;
    const shapes = matchAxes(name, declared, inputs);
    declaration.check?.(inputs, attributes, shapes);
    const graph: Graph = Object.values(inputs)[0]!.graph;
    const results = {} as Record<O, Sym>;
    for (const [output, spec] of Object.entries(outputs) as [
      O,
      string | ((call: CallShapes, attributes: Widened<A>) => OutputSpec),
    ][]) {
      const made = typeof spec === 'function' ? spec(shapes, attributes) : { shape: shapeOf(spec, shapes) };
      results[output] = into?.[output] ?? graph.value(`${name}.${output}`, made.shape, made.dtype ?? 'f32');
      if (results[output].shape.join() === made.shape.join()) continue;
      throw new MatMambaError(
        'INTERNAL',
        `${name}: '${output}' is ${formatShape(made.shape)}, its place ${formatShape(results[output].shape)}`,
      );
    }
    graph.addNode({ op, inputs, outputs: results, attributes });
    return results;
  };
  const op: Op<I, O, A> = Object.assign(call, {
    inputAxes: declared,
    outputNames: Object.keys(outputs) as O[],
    defaults,
    inPlace: (declaration.inPlace ?? {}) as Readonly<Record<string, string>>,
    gradient: declaration.gradient as OpDefinition['gradient'],
    flops: (node: GraphNode) => declaration.flops(matchAxes(name, declared, node.inputs).axes, node.attributes as Widened<A>),
  });
  Object.defineProperty(op, 'name', { value: name });
  return op;
}

function shapeOf(declaration: string, { axes, leading }: CallShapes): Shape {
  return declaration.split(' ').flatMap((letter) => (letter === '*' ? leading : [axes[letter]!]));
}

/** A kernel that a backend does not have, with the reason that `capabilities()` shows. */
export interface Unsupported {
  readonly unsupported: string;
}
export function unsupported(reason: string): Unsupported {
  return { unsupported: reason };
}

/** A backend's kernels: one entry for every op, or the reason why not. A missing entry is a type error. */
export type KernelTable<Name extends string, Kernel> = Readonly<Record<Name, Kernel | Unsupported>>;
