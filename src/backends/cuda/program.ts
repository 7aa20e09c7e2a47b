/**
 * A graph as the CUDA backend runs it: launches recorded as one CUDA graph, recorded when the program first runs and
 * again when the arena has moved. Inputs are copied from, results to page-locked host memory around each replay.
 *
 * In `bf16-mixed` (and where a 16-bit model has float32 matrices) products read 16-bit copies of the weights' rows,
 * made at the start of every replay: weights may have changed since.
 */

import { MatMambaError, throwIfAborted } from '../../errors.ts';
import { type Graph, type GraphNode, type Value, paddedColumns, rowsOf } from '../../graph/graph.ts';
import { type MemoryPlan, planMemory } from '../../graph/plan.ts';
import { type CudaHalf, type CudaElement, type CudaLaunch, ELEMENT_BYTES } from '../../ops/cuda-kernel.ts';
import { sizeOf } from '../../tensor/tensor.ts';
import type { Arena, ModelDType, OpProfile, Program, ProgramInputs, RunOptions } from '../backend.ts';
import { untilAborted } from '../until-aborted.ts';
import type { CudaDriver, HostCopy, Recording } from './driver.ts';
import { type PreparedWeights, ResolvedNode, WeightCopies } from './operands.ts';
import { RankJoins } from './rank-joins.ts';
import { Staging } from './staging.ts';
import { type Step, kernelOf, stepsOf } from './steps.ts';
import { placeTables } from './tables.ts';
import type { CudaStoredWeight } from './weights.ts';

/** What programs need of the backend that runs them. */
export interface CudaHost {
  readonly driver: CudaDriver;
  /** Device memory of the table from slot to address. */
  readonly slotTable: bigint;
  /** Runs `work` once everything asked for before is done. */
  exclusive<R>(work: () => R | Promise<R>): Promise<R>;
}

/** The working memory of a model's programs; `epoch` changes when it moves. */
export class CudaArena implements Arena {
  readonly #host: CudaHost;
  pointer = 0n;
  bytes = 0;
  epoch = 0;

  constructor(host: CudaHost) {
    this.#host = host;
  }

  /** Called while nothing runs. @throws MEMORY; then there is none */
  reserve(bytes: number): void {
    if (bytes <= this.bytes) return;
    this.dispose();
    this.pointer = this.#host.driver.allocate(bytes, 'activations');
    this.bytes = bytes;
    this.epoch++;
  }

  dispose(): void {
    if (this.bytes > 0) this.#host.driver.free(this.pointer);
    this.bytes = 0;
  }
}

/** Host memory of a node's description and, by what was seen, of its part of the CUDA graph. */
const NODE_BYTES = 4000;
/** Where operands are taken to lie while only sizes are asked for. */
const NOWHERE = 0n;

interface Linked {
  readonly epoch: number;
  readonly recording: Recording;
  readonly inputs: readonly HostCopy[];
  readonly outputs: readonly HostCopy[];
  /** Device memory of constant tables. */
  readonly tables: bigint;
  /** Node of each launch of the recording, for profiles; -1 for copies. */
  readonly nodeOfLaunch: readonly number[];
}

/** 16-bit element of activations in a dtype; undefined where they are float32. */
export function halfOf(dtype: ModelDType): CudaHalf | undefined {
  if (dtype === 'f16') return 'f16';
  return dtype === 'bf16' || dtype === 'bf16-mixed' || dtype === 'int8' ? 'bf16' : undefined;
}

export class CudaProgram implements Program {
  readonly host: CudaHost;
  readonly weights: ReadonlyMap<string, CudaStoredWeight>;
  readonly activation: 'f32' | CudaHalf;
  readonly #dtype: ModelDType;
  readonly #graph: Graph;
  readonly #arena: CudaArena;
  readonly #steps: readonly Step[];
  readonly #wide: ReadonlySet<number>;
  readonly #plan: MemoryPlan;
  readonly #copies: WeightCopies;
  /** Where the weights' copies lie in the arena, behind the plan, and where narrow inputs and results land. */
  readonly #copiesAt: number;
  readonly #landingAt: number;
  readonly #arenaBytes: number;
  readonly #staging: Staging;
  #linked: Linked | undefined;
  #disposed = false;

  constructor(host: CudaHost, graph: Graph, weights: ReadonlyMap<string, CudaStoredWeight>, arena: CudaArena, dtype: ModelDType) {
    this.host = host;
    this.weights = weights;
    this.#graph = graph;
    this.#arena = arena;
    this.#dtype = dtype;
    this.activation = halfOf(dtype) ?? 'f32';
    this.#wide = wideValues(graph);
    this.#copies = new WeightCopies(this.activation);
    const sized = (node: GraphNode): ResolvedNode => this.#resolve(node, NOWHERE, NOWHERE, NOWHERE);
    this.#steps = stepsOf(graph, sized);
    const stepOf = new Map(this.#steps.map((step) => [step.planned, step]));
    this.#plan = planMemory(
      { inputs: graph.inputs, outputs: graph.outputs, nodes: this.#steps.map(({ planned }) => planned) },
      (planned) => {
        const { nodes, scratchBytes } = stepOf.get(planned)!;
        return scratchBytes(nodes.map(sized));
      },
      (value) => this.#bytesOf(value),
    );
    this.#copiesAt = align(this.#plan.bytes);
    // Asking for all launches once tells which weights have to be copied.
    for (const i of this.#steps.keys()) this.#launchesOf(i, NOWHERE);
    this.#landingAt = align(this.#copiesAt + this.#copies.bytes);
    this.#staging = new Staging(host.driver, graph, (value) => this.offsetOf(value));
    this.#arenaBytes = this.#landingAt + this.#staging.landingBytes;
  }

  get bytes(): number {
    return this.#graph.nodes.length * NODE_BYTES;
  }

  run(inputs: ProgramInputs, options: RunOptions = {}): Promise<Record<string, Float32Array>> {
    const result = this.host.exclusive(async () => {
      if (this.#disposed) throw new MatMambaError('DISPOSED', 'this program was disposed');
      throwIfAborted(options.signal);
      const { recording, nodeOfLaunch, inputs: copiesIn, outputs: copiesOut } = await this.#link();
      this.#staging.write(inputs);
      for (const copy of copiesIn) this.host.driver.copy(copy);
      if (options.profile) options.profile(this.#profile(await recording.time(), nodeOfLaunch));
      else if (options.onDeviceMs) options.onDeviceMs(await recording.replayTimed());
      else recording.replay();
      for (const copy of copiesOut) this.host.driver.copy(copy);
      await this.host.driver.done();
      return this.#staging.read();
    });
    return options.signal ? untilAborted(result, options.signal) : result;
  }

  dispose(): void {
    void this.host.exclusive(() => {
      this.#disposed = true;
      this.#unlink();
      this.#staging.free();
    });
  }

  /** Element of a value in the arena. */
  elementOf(value: Value): CudaElement {
    if (value.dtype === 'i32') return 'i32';
    return value.kind === 'value' && !this.#wide.has(value.id) ? this.activation : 'f32';
  }

  /** Where a value lies in the arena, bytes. */
  offsetOf(value: Value): number {
    return this.#plan?.offsets.get(value.id) ?? 0;
  }

  #bytesOf(value: Value): number {
    if (value.dtype === 'i32') return 4 * sizeOf(value.shape);
    return ELEMENT_BYTES[this.elementOf(value)] * rowsOf(value.shape) * paddedColumns(value.shape.at(-1) ?? 1);
  }

  #resolve(node: GraphNode, base: bigint, scratch: bigint, copies: bigint): ResolvedNode {
    const prepared: PreparedWeights = { copies: this.#copies, base: copies };
    return new ResolvedNode(this, node, base, scratch, prepared);
  }

  #launchesOf(i: number, base: bigint): readonly CudaLaunch[] {
    const { nodes, launches } = this.#steps[i]!;
    const scratch = this.#plan.scratch.get(i);
    const copies = base + BigInt(this.#copiesAt);
    return launches(nodes.map((node) => this.#resolve(node, base, scratch === undefined ? 0n : base + BigInt(scratch), copies)));
  }

  /** The recording for where the arena lies now. */
  async #link(): Promise<Linked> {
    this.#arena.reserve(this.#arenaBytes);
    if (this.#linked?.epoch === this.#arena.epoch) return this.#linked;
    this.#unlink();
    const { driver } = this.host;
    const base = this.#arena.pointer;
    const landing = base + BigInt(this.#landingAt);
    const launches: CudaLaunch[] = [];
    const nodeOfLaunch: number[] = [];
    const add = (node: number, more: readonly CudaLaunch[]): void => {
      for (const launch of more) {
        launches.push(launch);
        nodeOfLaunch.push(node);
      }
    };
    add(-1, this.#staging.spread(base, landing));
    add(-1, this.#copies.launches(base + BigInt(this.#copiesAt)));
    const joins = new RankJoins();
    for (const [i, { first, nodes }] of this.#steps.entries()) add(first, joins.place(nodes, this.#launchesOf(i, base)));
    add(-1, joins.end());
    add(-1, this.#staging.gather(base, landing));
    const { launches: placed, tables } = placeTables(driver, launches);
    try {
      const recording = await driver.record(placed, this.#dtype === 'tf32');
      const inputs = this.#staging.copiesIn(base, landing);
      const outputs = this.#staging.copiesOut(base, landing);
      this.#linked = { epoch: this.#arena.epoch, recording, inputs, outputs, tables, nodeOfLaunch };
      return this.#linked;
    } catch (error) {
      if (tables) driver.free(tables);
      throw error;
    }
  }

  #unlink(): void {
    this.#linked?.recording.free();
    if (this.#linked?.tables) this.host.driver.free(this.#linked.tables);
    this.#linked = undefined;
  }

  #profile(times: readonly number[], nodeOfLaunch: readonly number[]): OpProfile[] {
    const msOfNode = new Map<number, number>();
    for (const [i, node] of nodeOfLaunch.entries()) msOfNode.set(node, (msOfNode.get(node) ?? 0) + times[i]!);
    const ops = this.#graph.nodes.map((node, i) => ({
      op: node.op.name,
      scope: node.scope,
      ms: msOfNode.get(i) ?? 0,
      flops: node.op.flops(node),
      bytes: this.#resolve(node, NOWHERE, NOWHERE, NOWHERE).bytesTouched(),
    }));
    const copies = msOfNode.get(-1) ?? 0;
    return [
      ...ops,
      {
        op: 'copies',
        scope: '16-bit weights, narrow inputs and results',
        ms: copies,
        flops: 0,
        bytes: this.#copies.bytesTouched,
      },
    ];
  }
}

function align(bytes: number): number {
  return Math.ceil(bytes / 256) * 256;
}

/** Values that stay float32 in a 16-bit precision: results, and what ops say. */
function wideValues(graph: Graph): Set<number> {
  const wide = new Set([...graph.outputs.values()].map(({ value }) => value.id));
  for (const node of graph.nodes) {
    for (const name of kernelOf(node).wide ?? []) {
      const operand = node.outputs[name] ?? node.inputs[name];
      if (operand) wide.add(operand.value.id);
    }
  }
  return wide;
}
