/**
 * The memory plan: where each value of a graph lies in the arena.
 *
 * Values live from the node that writes them to the last node that reads them (program inputs from the start, outputs
 * to the end); a node's scratch lives while it runs. Regions are 256-byte aligned, taken best-fit from what is free,
 * in node order. An output that may work in place takes over its input's region when nothing reads that later.
 */

import { type Graph, type GraphNode, type Value, arenaBytes } from './graph.ts';

export const REGION_ALIGN_BYTES = 256;

export interface MemoryPlan {
  /** Byte offset of each planned value in the arena, by value id. */
  readonly offsets: ReadonlyMap<number, number>;
  /** Byte offset of each node's scratch, by node index; nodes without scratch are absent. */
  readonly scratch: ReadonlyMap<number, number>;
  /** Bytes of the whole arena. */
  readonly bytes: number;
}

/** Free regions of a growing arena, in address order. */
class FreeList {
  end = 0;
  readonly #free: { offset: number; bytes: number }[] = [];

  take(size: number): number {
    const bytes = align(size);
    let best = -1;
    for (const [i, region] of this.#free.entries()) {
      if (region.bytes >= bytes && (best < 0 || region.bytes < this.#free[best]!.bytes)) best = i;
    }
    if (best >= 0) {
      const region = this.#free[best]!;
      const { offset } = region;
      region.offset += bytes;
      region.bytes -= bytes;
      if (region.bytes === 0) this.#free.splice(best, 1);
      return offset;
    }
    const last = this.#free.at(-1);
    if (last && last.offset + last.bytes === this.end) {
      this.#free.pop();
      this.end = last.offset + bytes;
      return last.offset;
    }
    const offset = this.end;
    this.end += bytes;
    return offset;
  }

  give(offset: number, size: number): void {
    const bytes = align(size);
    let at = this.#free.findIndex((region) => region.offset > offset);
    if (at < 0) at = this.#free.length;
    this.#free.splice(at, 0, { offset, bytes });
    for (const i of [at, at - 1]) {
      const region = this.#free[i];
      const next = this.#free[i + 1];
      if (region && next && region.offset + region.bytes === next.offset) {
        region.bytes += next.bytes;
        this.#free.splice(i + 1, 1);
      }
    }
  }
}

function align(bytes: number): number {
  return Math.max(REGION_ALIGN_BYTES, Math.ceil(bytes / REGION_ALIGN_BYTES) * REGION_ALIGN_BYTES);
}

/** What is planned of a graph; backends may plan several nodes as one. */
export type PlannedGraph = Pick<Graph, 'nodes' | 'inputs' | 'outputs'>;

/** True for values that the plan places: parameters and states live elsewhere. */
function isPlanned(value: Value): boolean {
  return value.kind === 'input' || value.kind === 'value';
}

/** Index of the last node that touches each value; outputs are kept to the end. */
function lastUses(graph: PlannedGraph): Map<number, number> {
  const last = new Map<number, number>();
  for (const [i, node] of graph.nodes.entries()) {
    for (const sym of [...Object.values(node.inputs), ...Object.values(node.outputs)]) last.set(sym.value.id, i);
  }
  for (const sym of graph.outputs.values()) last.set(sym.value.id, graph.nodes.length);
  return last;
}

/** Plans the arena of a graph; `scratchBytes` says what each node needs while it runs, `bytesOf` what a value takes. */
export function planMemory(
  graph: PlannedGraph,
  scratchBytes: (node: GraphNode) => number,
  bytesOf: (value: Value) => number = arenaBytes,
): MemoryPlan {
  const last = lastUses(graph);
  const list = new FreeList();
  const offsets = new Map<number, number>();
  const scratch = new Map<number, number>();
  for (const sym of graph.inputs.values()) offsets.set(sym.value.id, list.take(bytesOf(sym.value)));
  for (const [i, node] of graph.nodes.entries()) {
    const moved = new Set<number>();
    for (const [name, output] of Object.entries(node.outputs)) {
      // A value that several nodes write by columns has its place already.
      if (offsets.has(output.value.id)) continue;
      const source = node.inputs[node.op.inPlace[name] ?? ''];
      const takesOver =
        source?.value.kind === 'value' &&
        last.get(source.value.id) === i &&
        !moved.has(source.value.id) &&
        bytesOf(source.value) === bytesOf(output.value);
      if (takesOver) {
        offsets.set(output.value.id, offsets.get(source.value.id)!);
        moved.add(source.value.id);
      } else offsets.set(output.value.id, list.take(bytesOf(output.value)));
    }
    const bytes = scratchBytes(node);
    if (bytes > 0) {
      const offset = list.take(bytes);
      scratch.set(i, offset);
      list.give(offset, bytes);
    }
    const used = new Map([...Object.values(node.inputs), ...Object.values(node.outputs)].map((sym) => [sym.value.id, sym.value]));
    for (const [id, value] of used) {
      if (isPlanned(value) && last.get(id) === i && !moved.has(id)) list.give(offsets.get(id)!, bytesOf(value));
    }
  }
  return { offsets, scratch, bytes: list.end };
}
