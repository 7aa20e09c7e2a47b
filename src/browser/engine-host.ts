/** The engine's side of the conversation: models by number, requests that run side by side, each with its abort. */

import { DEVICE_NAMES, type DeviceName, WEIGHT_DTYPES } from '../backends/backend.ts';
import { acquireBackend } from '../backends/open.ts';
import { defaultStore } from '../checkpoint/index.ts';
import { widthStep } from '../elastic/granularity.ts';
import { MatMambaError, messageOf } from '../errors.ts';
import { type ModelSpec, describeModel, sizeAt } from '../models/description.ts';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import { MatMamba2Vision } from '../models/vision-model.ts';
import { tensor } from '../tensor/tensor.ts';
import type { Cost, DeviceReport, FromEngine, ModelInfo, RequestName, Requests, SentError, ToEngine } from './protocol.ts';

interface Call<N extends RequestName> {
  readonly given: Requests[N]['given'];
  readonly signal: AbortSignal;
  readonly tell: (event: Requests[N]['event']) => void;
}
type Handlers = { readonly [N in RequestName]: (call: Call<N>) => Promise<Requests[N]['result']> };

export class EngineHost {
  readonly #send: (message: FromEngine, move: Transferable[]) => void;
  readonly #models = new Map<number, MatMambaLMHeadModel | MatMamba2Vision>();
  readonly #running = new Map<number, AbortController>();
  #lastModel = 0;

  constructor(send: (message: FromEngine, move: Transferable[]) => void) {
    this.#send = send;
  }

  receive(message: ToEngine): void {
    if ('abort' in message) {
      this.#running.get(message.id)?.abort();
      return;
    }
    void this.#answer(message.id, message.name, message.given);
  }

  async #answer(id: number, name: RequestName, given: unknown): Promise<void> {
    const controller = new AbortController();
    this.#running.set(id, controller);
    const tell = (event: unknown): void => this.#send({ id, event }, []);
    try {
      const handle = this.#handlers[name] as (call: {
        given: unknown;
        signal: AbortSignal;
        tell: typeof tell;
      }) => Promise<unknown>;
      const result = await handle({ given, signal: controller.signal, tell });
      this.#send({ id, result }, []);
    } catch (error) {
      this.#send({ id, error: sentError(error) }, []);
    } finally {
      this.#running.delete(id);
    }
  }

  readonly #handlers: Handlers = {
    devices: () => Promise.all(DEVICE_NAMES.filter((name) => name !== 'cuda').map(reportDevice)),

    openLanguage: async ({ given: { source, options }, signal, tell }) => {
      const model = await MatMambaLMHeadModel.fromPretrained(source, { ...options, signal, progressCallback: tell });
      return { ...this.#adopt(model, { kind: 'language', config: model.config }), kind: 'language', config: model.config };
    },

    openVision: async ({ given: { source, options }, signal, tell }) => {
      const model =
        typeof source === 'string'
          ? await MatMamba2Vision.fromPretrained(source, { ...options, signal, progressCallback: tell })
          : await MatMamba2Vision.create(source.config, { ...options, signal, seed: source.seed });
      return { ...this.#adopt(model, { kind: 'vision', config: model.config }), kind: 'vision', config: model.config };
    },

    generate: async ({ given: { model, prompt, options }, signal, tell }) => {
      const lm = this.#language(model);
      const start = performance.now();
      for await (const piece of lm.generate(prompt, { ...options, signal })) tell({ ...piece, ms: performance.now() - start });
      return lm.memory();
    },

    loss: async ({ given: { model, ids, length, width }, signal }) => {
      const lm = this.#language(model);
      let sum = 0;
      let count = 0;
      for (let first = 0; first + 1 < ids.length; first += length) {
        const size = Math.min(length, ids.length - 1 - first);
        const part = (offset: number): Int32Array => Int32Array.from(ids.slice(first + offset, first + offset + size));
        const losses = await lm.loss(tensor(part(0), [1, size]), tensor(part(1), [1, size]), { ...width, signal });
        for (const loss of (await losses.data()) as Float32Array) sum += loss;
        count += size;
      }
      return sum / count;
    },

    fineTune: async ({ given: { model, text, options }, signal, tell }) => {
      const { fineTune } = await import('../train/fine-tune.ts');
      await fineTune(this.#language(model), text, { ...options, signal, onStep: tell });
      return null;
    },

    files: ({ given: { model } }) => this.#model(model).files(),

    classify: async ({ given: { model, pixels, width }, signal }) => {
      const vision = this.#vision(model);
      const { imageSize: S } = vision.config;
      const start = performance.now();
      const scores = await vision.forward(tensor(pixels, [1, 3, S, S]), { ...width, signal });
      const values = (await scores.data()) as Float32Array<ArrayBuffer>;
      return { scores: values, ms: performance.now() - start };
    },

    memory: async ({ given: { model } }) => this.#model(model).memory(),

    dispose: async ({ given: { model } }) => {
      const held = this.#model(model);
      this.#models.delete(model);
      await held.dispose();
      return null;
    },

    stored: async ({ given: { clear } }) => {
      const store = await defaultStore();
      if (clear) await store.clear();
      const records = await store.records();
      return records.filter(({ absent }) => !absent).map(({ url, savedBytes }) => ({ url, bytes: savedBytes }));
    },
  };

  #adopt(model: MatMambaLMHeadModel | MatMamba2Vision, spec: ModelSpec): Omit<ModelInfo, 'kind'> {
    const { config } = model;
    const description = describeModel(spec);
    const step = widthStep(config.dModel);
    const [one, two] = [sizeAt(description, step), sizeAt(description, 2 * step)];
    // Every matrix of a layer grows by the same rows and columns with each head.
    const cost = (at1: number, at2: number): Cost => ({
      fixed: at1 - (at2 - at1),
      perStep: (at2 - at1) / config.nLayer,
    });
    const storage = WEIGHT_DTYPES.find((dtype) => dtype === model.dtype) ?? 'f32';
    const number = ++this.#lastModel;
    this.#models.set(number, model);
    return {
      model: number,
      dModel: config.dModel,
      nLayer: config.nLayer,
      widthStep: step,
      parameterCount: model.parameterCount,
      parameters: cost(one.parameters, two.parameters),
      bytes: cost(one.bytes[storage], two.bytes[storage]),
      dtype: model.dtype,
      capabilities: model.capabilities(),
      memory: model.memory(),
    };
  }

  #model(number: number): MatMambaLMHeadModel | MatMamba2Vision {
    const model = this.#models.get(number);
    if (!model) throw new MatMambaError('DISPOSED', `this engine holds no model ${number}`);
    return model;
  }

  #language(number: number): MatMambaLMHeadModel {
    const model = this.#model(number);
    if (model instanceof MatMambaLMHeadModel) return model;
    throw new MatMambaError('OPTION', `model ${number} is no language model`);
  }

  #vision(number: number): MatMamba2Vision {
    const model = this.#model(number);
    if (model instanceof MatMamba2Vision) return model;
    throw new MatMambaError('OPTION', `model ${number} is no vision model`);
  }
}

/** Opens a device and lets it go again. */
async function reportDevice(device: DeviceName): Promise<DeviceReport> {
  try {
    const { backend, release } = await acquireBackend({ device });
    const { summary, facts, dtypes } = backend.capabilities();
    await release();
    const why = facts['one thread'];
    return { device, usable: true, summary: why === undefined ? summary : `${summary}: ${why}`, dtypes };
  } catch (error) {
    return { device, usable: false, summary: messageOf(error), dtypes: [] };
  }
}

function sentError(error: unknown): SentError {
  if (error instanceof MatMambaError) {
    // The hint becomes part of the message again on the other side.
    return { code: error.code, message: error.text, hint: error.hint };
  }
  return { code: 'INTERNAL', message: messageOf(error), hint: undefined };
}
