/**
 * A graph as the CPU backend runs it: a table of (function, arguments) pairs in shared memory. Addresses in the
 * arguments depend on where the arena lies, so the table is written when the program first runs and again when the
 * arena has moved. Everything here happens inside the team's queue.
 */

import { MatMambaError, throwIfAborted } from '../../errors.ts';
import { type Graph, type GraphNode, arenaBytes, paddedColumns, rowsOf } from '../../graph/graph.ts';
import { type MemoryPlan, planMemory } from '../../graph/plan.ts';
import type { CpuBuffer, CpuCall, CpuKernel, CpuNode, CpuState, CpuWeight } from '../../ops/cpu-kernel.ts';
import { sizeOf } from '../../tensor/tensor.ts';
import type { Arena, OpProfile, Program, ProgramInputs, RunOptions } from '../backend.ts';
import { NodeOperands } from '../node-operands.ts';
import { untilAborted } from '../until-aborted.ts';
import type { Heap } from './heap.ts';
import { findKernel } from '../kernel-table.ts';
import { cpuKernels } from './table.ts';
import type { Crew } from './team.ts';

/** What programs need of the backend that runs them. */
export interface CpuHost {
  readonly heap: Heap;
  readonly team: Crew;
  /** Whether `blas_sgemm` may be called. */
  readonly blas: boolean;
  /** Address of the table from slot to address. */
  readonly slotTable: number;
  /** Where a kernel stands in the module's function table. */
  kernelIndex(name: string): number;
}

/** The working memory of a model's programs; `epoch` changes when it moves. */
export class CpuArena implements Arena {
  readonly #backend: CpuHost;
  pointer = 0;
  bytes = 0;
  epoch = 0;

  constructor(backend: CpuHost) {
    this.#backend = backend;
  }

  reserve(bytes: number): void {
    if (bytes <= this.bytes) return;
    this.dispose();
    this.pointer = this.#backend.heap.allocate(bytes, 'activations');
    this.bytes = bytes;
    this.epoch++;
  }

  dispose(): void {
    if (this.bytes > 0) this.#backend.heap.free(this.pointer);
    this.bytes = 0;
  }
}

/** Resolves a node's operands to addresses; `base` is where the arena lies. */
class ResolvedNode extends NodeOperands<CpuWeight> implements CpuNode {
  readonly #program: CpuProgram;
  readonly #base: number;
  readonly threads: number;
  readonly blas: boolean;
  readonly scratch: number;

  constructor(program: CpuProgram, node: GraphNode, base: number, scratch: number) {
    super(node, program.weights);
    this.#program = program;
    this.#base = base;
    this.threads = program.backend.team.threads;
    this.blas = program.backend.blas;
    this.scratch = scratch;
  }

  buffer(name: string): CpuBuffer {
    const { value, column } = this.operand(name);
    const offset = this.#program.plan?.offsets.get(value.id) ?? 0;
    return { pointer: this.#base + offset + 4 * column, ...this.rowsOf(name) };
  }

  state(name: string): CpuState {
    const { offset, shape } = this.stateSpec(name);
    return { slotTable: this.#program.backend.slotTable, offset: 4 * offset, shape };
  }

  /** Bytes of the operands, weights at their stored size and only the rows and columns that are used. */
  bytesTouched(): number {
    let bytes = 0;
    for (const [name, { value, shape }] of [...Object.entries(this.node.inputs), ...Object.entries(this.node.outputs)]) {
      if (value.kind === 'parameter') bytes += ELEMENT_BYTES[this.weight(name).dtype] * this.weightElements(name);
      else if (value.kind !== 'state') bytes += 4 * sizeOf(shape);
    }
    return bytes;
  }
}

const ELEMENT_BYTES = { f32: 4, bf16: 2, f16: 2, i8: 1 } as const;

/** What a program holds per node: its graph here, its calls in shared memory. */
const NODE_BYTES = 1200;

interface Table {
  readonly epoch: number;
  readonly pointer: number;
  readonly entries: number;
  /** Node index of each call, for profiles. */
  readonly nodeOfCall: readonly number[];
}

const kernelOf = (node: GraphNode): CpuKernel => findKernel(cpuKernels, node, 'the CPU');

export class CpuProgram implements Program {
  readonly backend: CpuHost;
  readonly weights: ReadonlyMap<string, CpuWeight>;
  plan: MemoryPlan | undefined;
  readonly #graph: Graph;
  readonly #arena: CpuArena;
  #table: Table | undefined;
  #disposed = false;

  constructor(backend: CpuHost, graph: Graph, weights: ReadonlyMap<string, CpuWeight>, arena: CpuArena) {
    this.backend = backend;
    this.weights = weights;
    this.#graph = graph;
    this.#arena = arena;
    this.plan = planMemory(graph, (node) => kernelOf(node).scratchBytes?.(new ResolvedNode(this, node, 0, 0)) ?? 0);
  }

  get bytes(): number {
    return this.#graph.nodes.length * NODE_BYTES;
  }

  run(inputs: ProgramInputs, options: RunOptions = {}): Promise<Record<string, Float32Array>> {
    const result = this.backend.team.exclusive(async () => {
      if (this.#disposed) throw new MatMambaError('DISPOSED', 'this program was disposed');
      throwIfAborted(options.signal);
      const table = this.#link();
      this.#writeInputs(inputs);
      const times = options.profile ? this.backend.heap.allocate(8 * (table.entries + 1), 'profile times') : 0;
      try {
        await this.backend.team.run(table.pointer, table.entries, times, options.signal);
        if (options.profile) options.profile(this.#profile(table, times));
      } finally {
        if (times) this.backend.heap.free(times);
      }
      return this.#readOutputs();
    });
    // A run that waits its turn never starts; one that runs ends at its next barrier, before anything asked for later.
    return options.signal ? untilAborted(result, options.signal) : result;
  }

  dispose(): void {
    void this.backend.team.exclusive(() => {
      this.#disposed = true;
      this.#dropTable();
    });
  }

  /** The table for where the arena lies now. */
  #link(): Table {
    this.#arena.reserve(this.plan!.bytes);
    if (this.#table?.epoch === this.#arena.epoch) return this.#table;
    this.#dropTable();
    const calls: CpuCall[] = [];
    const nodeOfCall: number[] = [];
    for (const [i, node] of this.#graph.nodes.entries()) {
      const scratch = this.plan!.scratch.get(i);
      const resolved = new ResolvedNode(
        this,
        node,
        this.#arena.pointer,
        scratch === undefined ? 0 : this.#arena.pointer + scratch,
      );
      for (const made of kernelOf(node).calls(resolved)) {
        calls.push(made);
        nodeOfCall.push(i);
      }
    }
    const words = calls.reduce((sum, { args }) => sum + args.length, 2 * calls.length);
    const pointer = this.backend.heap.allocate(4 * words, 'a program');
    const ints = this.backend.heap.ints(pointer, words);
    const floats = this.backend.heap.floats(pointer, words);
    let at = 2 * calls.length;
    for (const [i, { kernel, args }] of calls.entries()) {
      ints[2 * i] = this.backend.kernelIndex(kernel);
      ints[2 * i + 1] = pointer + 4 * at;
      for (const arg of args) {
        if (typeof arg === 'number') ints[at++] = arg;
        else floats[at++] = arg.f32;
      }
    }
    this.#table = { epoch: this.#arena.epoch, pointer, entries: calls.length, nodeOfCall };
    return this.#table;
  }

  #dropTable(): void {
    if (this.#table) this.backend.heap.free(this.#table.pointer);
    this.#table = undefined;
  }

  #writeInputs(inputs: ProgramInputs): void {
    for (const [name, { value }] of this.#graph.inputs) {
      const given = inputs[name];
      if (given?.length !== sizeOf(value.shape)) {
        throw new MatMambaError('INTERNAL', `input '${name}' needs ${sizeOf(value.shape)} elements, got ${given?.length}`);
      }
      const pointer = this.#arena.pointer + this.plan!.offsets.get(value.id)!;
      if (value.dtype === 'i32') {
        this.backend.heap.ints(pointer, given.length).set(given as Int32Array);
        continue;
      }
      const width = value.shape.at(-1) ?? 1;
      const stride = paddedColumns(width);
      const target = this.backend.heap.floats(pointer, arenaBytes(value) / 4);
      if (stride === width) target.set(given as Float32Array);
      else {
        target.fill(0);
        for (let row = 0; row * width < given.length; row++) {
          target.set((given as Float32Array).subarray(row * width, (row + 1) * width), row * stride);
        }
      }
    }
  }

  #readOutputs(): Record<string, Float32Array> {
    const results: Record<string, Float32Array> = {};
    for (const [name, { value, column, shape, width }] of this.#graph.outputs) {
      const stride = paddedColumns(value.shape.at(-1) ?? 1);
      const rows = rowsOf(shape);
      const pointer = this.#arena.pointer + this.plan!.offsets.get(value.id)!;
      const source = this.backend.heap.floats(pointer, rows * stride);
      const result = new Float32Array(rows * width);
      if (stride === width) result.set(source);
      else
        for (let row = 0; row < rows; row++)
          result.set(source.subarray(row * stride + column, row * stride + column + width), row * width);
      results[name] = result;
    }
    return results;
  }

  /** Joins the times of calls to times of nodes. */
  #profile(table: Table, times: number): OpProfile[] {
    const marks = new Float64Array(this.backend.heap.memory.buffer, times, table.entries + 1);
    const msOfNode = new Map<number, number>();
    for (const [i, node] of table.nodeOfCall.entries()) msOfNode.set(node, (msOfNode.get(node) ?? 0) + marks[i + 1]! - marks[i]!);
    return this.#graph.nodes.map((node, i) => ({
      op: node.op.name,
      scope: node.scope,
      ms: msOfNode.get(i) ?? 0,
      flops: node.op.flops(node),
      bytes: new ResolvedNode(this, node, 0, 0).bytesTouched(),
    }));
  }
}
