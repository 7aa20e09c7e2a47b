/**
 * A graph as the WebGPU backend runs it. Everything is prepared once: the memory plan, compiled kernels, constants, bind
 * groups. A replay writes the inputs, encodes one command buffer and copies the results out through a mapped buffer.
 */

import { MatMambaError, messageOf, throwIfAborted } from '../../errors.ts';
import type { Graph, GraphNode, Value } from '../../graph/graph.ts';
import { arenaBytes } from '../../graph/graph.ts';
import { type MemoryPlan, planMemory } from '../../graph/plan.ts';
import type { Arena, OpProfile, Program, ProgramInputs, RunOptions } from '../backend.ts';
import { alignRegion, inputBytes, outputBytes, packInputs, unpackOutputs } from './host-values.ts';
import { untilAborted } from '../until-aborted.ts';
import { Commands, type MovingBuffers } from './commands.ts';
import { BUFFER_USAGE, type DeviceBuffer, type WebGpuDevice } from './device.ts';
import { type Places, ResolvedNode } from './operands.ts';
import type { StatePool } from './states.ts';
import { type StepPart, stepsOf } from './steps.ts';
import { type TimedReplay, timeParts, timeWhole } from './timing.ts';
import type { WebGpuStoredWeight } from './weights.ts';

/** What programs need of the backend that runs them. */
export interface WebGpuHost {
  readonly device: WebGpuDevice;
  readonly states: StatePool;
  /** Runs `work` once everything asked for before is done. */
  exclusive<R>(work: () => R | Promise<R>): Promise<R>;
}

/** The working memory of a model's programs; `epoch` changes when it moves. */
export class WebGpuArena implements Arena {
  readonly #host: WebGpuHost;
  #buffer: DeviceBuffer | undefined;
  bytes = 0;
  epoch = 0;

  constructor(host: WebGpuHost) {
    this.#host = host;
  }

  get buffer(): GPUBuffer {
    return this.#buffer!.gpu;
  }

  /** Called while nothing runs. @throws MEMORY; then there is none */
  async reserve(bytes: number): Promise<void> {
    if (this.#buffer && bytes <= this.bytes) return;
    this.dispose();
    this.#buffer = await this.#host.device.allocate(bytes, 'activations');
    this.bytes = this.#buffer.bytes;
    this.epoch++;
  }

  dispose(): void {
    this.#buffer?.free();
    this.#buffer = undefined;
    this.bytes = 0;
  }
}

/** Host memory of a node's description and its dispatches, roughly. */
const NODE_BYTES = 4000;

export class WebGpuProgram implements Program, Places {
  readonly facts;
  readonly weights: ReadonlyMap<string, WebGpuStoredWeight>;
  readonly #host: WebGpuHost;
  readonly #graph: Graph;
  readonly #arena: WebGpuArena;
  readonly #parts: StepPart[] = [];
  readonly #plan: MemoryPlan;
  readonly #commands: Commands;
  readonly #inputs: Uint8Array<ArrayBuffer>;
  readonly #resultBytes: number;
  #results: DeviceBuffer | undefined;
  /** Where the bind groups were made for. */
  #bound = '';
  #disposed = false;

  constructor(host: WebGpuHost, graph: Graph, weights: ReadonlyMap<string, WebGpuStoredWeight>, arena: WebGpuArena) {
    this.#host = host;
    this.weights = weights;
    this.facts = host.device.facts;
    this.#graph = graph;
    this.#arena = arena;
    const sized = (node: GraphNode): ResolvedNode => new ResolvedNode(this, node, 0);
    const steps = stepsOf(graph, sized);
    const stepOf = new Map(steps.map((step) => [step.planned, step]));
    this.#plan = planMemory(
      { inputs: graph.inputs, outputs: graph.outputs, nodes: steps.map(({ planned }) => planned) },
      (node) => {
        const { nodes, scratchFloats } = stepOf.get(node)!;
        return 4 * scratchFloats(nodes.map(sized));
      },
    );
    host.device.checkSize(this.#plan.bytes, 'activations');
    this.#commands = new Commands(host.device);
    for (const [i, { name, parts, nodes, commands }] of steps.entries()) {
      const scratch = this.#plan.scratch.get(i) ?? 0;
      const resolved = nodes.map((node) => new ResolvedNode(this, node, scratch));
      const first = this.#parts.length;
      this.#parts.push(...parts);
      for (const [k, command] of commands(resolved).entries()) {
        this.#commands.add(first + Math.min(k, parts.length - 1), `${name} ${nodes[0]!.scope}`.trim(), command);
      }
    }
    this.#inputs = new Uint8Array(inputBytes(graph.inputs, (value) => this.offsetOf(value)));
    this.#resultBytes = outputBytes(graph.outputs);
  }

  get bytes(): number {
    return this.#graph.nodes.length * NODE_BYTES + this.#commands.bytes + this.#inputs.length + this.#resultBytes;
  }

  offsetOf(value: Value): number {
    // Before the plan is made only sizes are asked for.
    return this.#plan?.offsets.get(value.id) ?? 0;
  }

  run(inputs: ProgramInputs, options: RunOptions = {}): Promise<Record<string, Float32Array>> {
    const result = this.#host.exclusive(async () => {
      if (this.#disposed) throw new MatMambaError('DISPOSED', 'this program was disposed');
      throwIfAborted(options.signal);
      await this.#commands.prepare();
      await this.#arena.reserve(Math.max(4, this.#plan.bytes));
      await this.#host.states.ready();
      if (this.#resultBytes > 0) {
        const usage = BUFFER_USAGE.mapRead | BUFFER_USAGE.copyTarget;
        this.#results ??= await this.#host.device.allocate(this.#resultBytes, 'results', usage);
      }
      packInputs(this.#graph.inputs, inputs, (value) => this.offsetOf(value), this.#inputs);
      if (options.profile) options.profile(this.#profile(await timeParts(this.#timedReplay())));
      else if (options.onDeviceMs) options.onDeviceMs(await timeWhole(this.#timedReplay()));
      else {
        const checked = this.#checked(() => this.#replay());
        // Asked for in the same turn: what WebGPU found wrong and the results come together.
        const [wrong, results] = await Promise.allSettled([checked, this.#readResults()]);
        if (wrong.status === 'rejected') throw wrong.reason;
        if (results.status === 'rejected') throw results.reason;
        return results.value;
      }
      return this.#readResults();
    });
    return options.signal ? untilAborted(result, options.signal) : result;
  }

  dispose(): void {
    void this.#host
      .exclusive(() => {
        this.#disposed = true;
        this.#commands.dispose();
        this.#results?.free();
        this.#results = undefined;
      })
      .catch(() => {});
  }

  /** Where everything lies now, bound; from here to the end of encoding nothing may be waited for. */
  #moving(): MovingBuffers {
    const moving = { arena: this.#arena.buffer, states: this.#host.states.buffer.gpu };
    const bound = `${this.#arena.epoch}/${this.#host.states.epoch}`;
    if (bound !== this.#bound) this.#commands.bind(moving);
    this.#bound = bound;
    return moving;
  }

  /** @throws DEVICE, MEMORY with what WebGPU found wrong in `work` */
  async #checked(work: () => void): Promise<void> {
    const error = await this.#host.device.scoped(work);
    if (!error) return;
    this.#bound = '';
    throw new MatMambaError('DEVICE', `WebGPU refused a program: ${messageOf(error)}`);
  }

  #writeInputs(): void {
    if (this.#inputs.length > 0) this.#host.device.gpu.queue.writeBuffer(this.#arena.buffer, 0, this.#inputs);
  }

  #replay(): void {
    const { gpu } = this.#host.device;
    const moving = this.#moving();
    this.#writeInputs();
    const encoder = gpu.createCommandEncoder();
    this.#commands.encode(encoder, moving, 0, this.#commands.length);
    this.#copyResults(encoder, moving);
    gpu.queue.submit([encoder.finish()]);
  }

  #timedReplay(): TimedReplay {
    const commands = this.#commands;
    let begun = false;
    const begin = (): MovingBuffers => {
      if (!begun) this.#writeInputs();
      begun = true;
      return this.#moving();
    };
    return {
      device: this.#host.device,
      count: commands.length,
      encode: (encoder, part, timestamps) => commands.encode(encoder, begin(), part, part + 1, timestamps),
      encodeAll: (encoder) => commands.encode(encoder, begin(), 0, commands.length),
      finish: (encoder) => this.#copyResults(encoder, begin()),
      checked: (work) => this.#checked(work),
    };
  }

  #profile(times: readonly number[]): OpProfile[] {
    const msOfPart = new Map<number, number>();
    for (const [i, part] of this.#commands.parts.entries()) msOfPart.set(part, (msOfPart.get(part) ?? 0) + times[i]!);
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    return this.#parts.map(({ name, nodes }, i) => ({
      op: name,
      scope: nodes[0]!.scope,
      ms: msOfPart.get(i) ?? 0,
      flops: sum(nodes.map((node) => node.op.flops(node))),
      bytes: sum(nodes.map((node) => new ResolvedNode(this, node, 0).bytesTouched())),
    }));
  }

  #copyResults(encoder: GPUCommandEncoder, { arena }: MovingBuffers): void {
    let at = 0;
    for (const { value } of this.#graph.outputs.values()) {
      const bytes = arenaBytes(value);
      encoder.copyBufferToBuffer(arena, this.offsetOf(value), this.#results!.gpu, at, bytes);
      at += alignRegion(bytes);
    }
  }

  async #readResults(): Promise<Record<string, Float32Array>> {
    if (!this.#results) {
      await this.#host.device.gpu.queue.onSubmittedWorkDone();
      return {};
    }
    const { gpu } = this.#results;
    await gpu.mapAsync(1);
    try {
      return unpackOutputs(this.#graph.outputs, new Uint8Array(gpu.getMappedRange()));
    } finally {
      gpu.unmap();
    }
  }
}
