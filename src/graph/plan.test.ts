/** The memory plan on random graphs: nothing alive is ever overwritten. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Graph, type GraphNode, type OpDefinition, type Sym, arenaBytes } from './graph.ts';
import { REGION_ALIGN_BYTES, planMemory } from './plan.ts';

interface NodePlan {
  readonly inputs: readonly number[];
  readonly outputs: readonly (readonly [rows: number, columns: number])[];
  readonly scratch: number;
  readonly inPlace: boolean;
}

const nodePlans = fc.array(
  fc.record<NodePlan>({
    inputs: fc.array(fc.nat(30), { minLength: 1, maxLength: 3 }),
    outputs: fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 70 })), { minLength: 1, maxLength: 3 }),
    scratch: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 5000 })),
    inPlace: fc.boolean(),
  }),
  { minLength: 1, maxLength: 25 },
);

function build(plans: readonly NodePlan[], outputs: readonly number[]): { graph: Graph; scratchOf: (node: GraphNode) => number } {
  const graph = new Graph();
  const all: Sym[] = [graph.input('a', [4, 30], 'f32'), graph.input('b', [3, 7], 'i32'), graph.input('unused', [2, 2], 'f32')];
  const scratch = new Map<number, number>();
  for (const [i, plan] of plans.entries()) {
    const inputs = Object.fromEntries(plan.inputs.map((n, k) => [`i${k}`, all[n % all.length]!]));
    // In place only where shapes agree, as `inPlace` promises; the planner must check the rest.
    const first = inputs['i0']!;
    const shapes = plan.outputs.map((shape, k) => (plan.inPlace && k === 0 ? first.shape : shape));
    const made = Object.fromEntries(shapes.map((shape, k) => [`o${k}`, graph.value(`v${i}.${k}`, shape)]));
    const op: OpDefinition = {
      name: `op${i}`,
      flops: () => 0,
      inPlace: plan.inPlace ? { o0: 'i0', o1: 'i0' } : {},
      gradient: undefined,
    };
    graph.addNode({ op, inputs, outputs: made, attributes: {} });
    scratch.set(i, plan.scratch);
    all.push(...Object.values(made));
  }
  for (const [k, n] of outputs.entries()) graph.output(`y${k}`, all[n % all.length]!);
  return { graph, scratchOf: (node) => scratch.get(graph.nodes.indexOf(node))! };
}

interface Region {
  readonly what: string;
  readonly start: number;
  readonly end: number;
}

test('no two live regions overlap, all are aligned and inside the arena', () => {
  fc.assert(
    fc.property(nodePlans, fc.array(fc.nat(80), { minLength: 1, maxLength: 3 }), (plans, outputs) => {
      const { graph, scratchOf } = build(plans, outputs);
      const plan = planMemory(graph, scratchOf);
      const firstUse = new Map<number, number>([...graph.inputs.values()].map((sym) => [sym.value.id, -1]));
      const lastUse = new Map<number, number>([...graph.inputs.values()].map((sym) => [sym.value.id, -1]));
      for (const [i, node] of graph.nodes.entries()) {
        for (const { value } of Object.values(node.outputs)) firstUse.set(value.id, i);
        for (const { value } of [...Object.values(node.inputs), ...Object.values(node.outputs)]) lastUse.set(value.id, i);
      }
      for (const { value } of graph.outputs.values()) lastUse.set(value.id, graph.nodes.length);
      for (let i = 0; i < graph.nodes.length; i++) {
        const node = graph.nodes[i]!;
        const takenOver = Object.entries(node.op.inPlace).flatMap(([output, input]) => {
          const [to, from] = [node.outputs[output]?.value, node.inputs[input]?.value];
          return to && from && plan.offsets.get(to.id) === plan.offsets.get(from.id) && lastUse.get(from.id) === i
            ? [from.id]
            : [];
        });
        const regions: Region[] = [];
        for (const value of graph.values) {
          if (!(firstUse.get(value.id)! <= i && i <= lastUse.get(value.id)!) || takenOver.includes(value.id)) continue;
          const start = plan.offsets.get(value.id)!;
          regions.push({ what: value.name, start, end: start + arenaBytes(value) });
        }
        const scratch = scratchOf(node);
        if (scratch > 0) {
          const start = plan.scratch.get(i)!;
          regions.push({ what: 'scratch', start, end: start + scratch });
        }
        regions.sort((a, b) => a.start - b.start);
        for (const [k, { what, start, end }] of regions.entries()) {
          expect(start % REGION_ALIGN_BYTES, what).toBe(0);
          expect(end).toBeLessThanOrEqual(plan.bytes);
          if (k > 0 && regions[k - 1]!.end > start) throw new Error(`${regions[k - 1]!.what} and ${what} overlap at node ${i}`);
        }
      }
    }),
    { numRuns: 500, seed: 1 },
  );
});

test('a chain of values needs the memory of two, in place of one', () => {
  const chain = (inPlace: boolean): number => {
    const graph = new Graph();
    let sym = graph.input('x', [64, 64], 'f32');
    for (let i = 0; i < 10; i++) {
      const y = graph.value(`v${i}`, [64, 64]);
      graph.addNode({
        op: { name: 'op', flops: () => 0, inPlace: inPlace ? { y: 'x' } : {}, gradient: undefined },
        inputs: { x: sym },
        outputs: { y },
        attributes: {},
      });
      sym = y;
    }
    graph.output('y', sym);
    return planMemory(graph, () => 0).bytes / (4 * 64 * 64);
  };
  expect(chain(false)).toBe(2);
  // The input itself is never taken over.
  expect(chain(true)).toBe(2);
});
