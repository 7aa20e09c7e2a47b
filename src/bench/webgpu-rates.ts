/** What a WebGPU adapter does at best: bytes a second of a large copy, the cost of a dispatch, of a round trip. */

import { BUFFER_USAGE, type DeviceBuffer, type WebGpuDevice } from '../backends/webgpu/device.ts';
import { Commands } from '../backends/webgpu/commands.ts';
import { type WebGpuDispatch, fold, writes } from '../ops/webgpu-kernel.ts';

export interface WebGpuRates {
  /** Bytes read and written by a large copy, GB/s. */
  readonly copyGigabytes: number;
  /** Microseconds of a small dispatch that waits for the one before it. */
  readonly dispatchMicros: number;
  /** Milliseconds of the smallest replay: bytes to the device, one dispatch, bytes back. */
  readonly roundTripMs: number;
}

const LARGEST_COPY_BYTES = 2 ** 28;
const COPIES = 8;
const DISPATCHES = 256;
const TRIALS = 5;
const LANES = 256;
/** Vectors of an invocation. */
const STEPS = 4;

/** to = from, 16 bytes a step; neighbours have neighbouring vectors. */
const COPY_SOURCE = `
@compute @workgroup_size(${LANES})
fn copy(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32) {
  let first = ${LANES * STEPS}u * folded(wid, count) + lane;
  for (var i = 0u; i < ${STEPS}u; i++) {
    if (first + ${LANES}u * i < c.vectors) { goal[first + ${LANES}u * i] = origin[first + ${LANES}u * i]; }
  }
}
`;

/** `bytes` of copies at most, where the adapter allows buffers of that size. @throws MEMORY, DEVICE */
export async function measureRates(device: WebGpuDevice, bytes = LARGEST_COPY_BYTES): Promise<WebGpuRates> {
  const size = Math.min(bytes, device.bufferLimitBytes);
  const buffers: DeviceBuffer[] = [];
  const allocate = async (label: string, usage?: number): Promise<DeviceBuffer> => {
    const buffer = await device.allocate(usage === undefined ? size : LANES, label, usage);
    buffers.push(buffer);
    return buffer;
  };
  const copies = new Commands(device);
  const chain = new Commands(device);
  try {
    const [a, b] = [await allocate('copied from'), await allocate('copied to')];
    const back = await allocate('read', BUFFER_USAGE.mapRead | BUFFER_USAGE.copyTarget);
    const dispatch = (vectors: number, origin: DeviceBuffer, goal: DeviceBuffer): WebGpuDispatch => ({
      kind: 'dispatch',
      source: COPY_SOURCE,
      entry: 'copy',
      workgroups: fold(Math.ceil(vectors / (LANES * STEPS))),
      bindings: [writes('origin', origin, 'vec4<f32>'), writes('goal', goal, 'vec4<f32>')],
      constants: { vectors },
    });
    // To and fro, so that each waits for the one before.
    const fill = (commands: Commands, count: number, vectors: number): void => {
      for (let i = 0; i < count; i++) commands.add(i, 'rates', i % 2 ? dispatch(vectors, b, a) : dispatch(vectors, a, b));
    };
    fill(copies, COPIES, Math.floor(size / 16));
    fill(chain, DISPATCHES, 1);
    const moving = { arena: a.gpu, states: a.gpu };
    for (const commands of [copies, chain]) {
      await commands.prepare();
      commands.bind(moving);
    }
    const { queue } = device.gpu;
    const word = new Uint8Array(4);
    /** Milliseconds of a replay of the first `count` commands, results read back: the least of several. */
    const time = async (commands: Commands, count: number): Promise<number> => {
      let least = Infinity;
      for (let trial = 0; trial < TRIALS; trial++) {
        const start = performance.now();
        queue.writeBuffer(a.gpu, 0, word);
        const encoder = device.gpu.createCommandEncoder();
        commands.encode(encoder, moving, 0, count);
        encoder.copyBufferToBuffer(a.gpu, 0, back.gpu, 0, back.bytes);
        queue.submit([encoder.finish()]);
        await back.gpu.mapAsync(1);
        back.gpu.unmap();
        least = Math.min(least, performance.now() - start);
      }
      return least;
    };
    const roundTripMs = await time(chain, 1);
    const copyMs = ((await time(copies, COPIES)) - (await time(copies, 1))) / (COPIES - 1);
    const dispatchMs = ((await time(chain, DISPATCHES)) - roundTripMs) / (DISPATCHES - 1);
    device.check();
    return { copyGigabytes: (2 * size) / copyMs / 1e6, dispatchMicros: 1000 * dispatchMs, roundTripMs };
  } finally {
    for (const commands of [copies, chain]) commands.dispose();
    for (const buffer of buffers) buffer.free();
  }
}
